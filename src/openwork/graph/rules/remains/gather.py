"""Rows of a stored table by fed ids."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import attributes, make, needed, operand
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.functions.embedding_bag import INTEGERS
from openwork.graph.stored_rows import Table, as_integers, table


@dataclass(frozen=True)
class _Rows:
    node: ir.Node
    table: Table
    ids: ir.Value


def _match(node: ir.Node) -> _Rows | None:
    found = table(operand(node, 0))
    return None if found is None else _Rows(node, found, needed(node, 1))


def _check(found: _Rows) -> str | None:
    if attributes(found.node).get("axis", 0) % 2 != 0:
        return "it takes columns of a stored table"
    if found.ids.dtype not in INTEGERS:
        return "its ids are neither INT64 nor INT32"
    # Computed ones may count from the table's end, which an engine refuses.
    return None if found.ids.is_graph_input() else "its ids are computed"


def _replace(found: _Rows) -> Replacement:
    ids, nodes = as_integers(found.ids, found.node)
    slots = {"ids": ids, **found.table.slots(home(found.node))}
    made = make("Gather", slots, {}, found.table.name)
    return Replacement([*nodes, made], [(found.node.outputs[0], made.outputs[0])])


GATHER = Rule("rows of a table", frozenset({"Gather"}), _match, _check, _replace)
