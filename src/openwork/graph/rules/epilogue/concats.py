"""What becomes of integers side by side happens before they are joined, where the steps that make them do it.

A native Concat then has nothing to look up, and such a step writes its integers where they end up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    is_openwork,
    lone_native_producer,
    make,
    native_producer,
    needed,
    only_consumer,
)
from openwork.graph.rewrite import Replacement, Rule, home, never
from openwork.graph.rules.epilogue.quantized_outputs import quantizer, takes_quantizer
from openwork.graph.rules.functions.concat import BYTES, requantized, stored_tables
from openwork.graph.slots import filled, rebuilt, row_of, slot


@dataclass(frozen=True)
class _Joined:
    """A Quantize of a Concat of floats, which nothing else reads."""

    quantize: ir.Node
    concat: ir.Node


def _match_quantize(node: ir.Node) -> _Joined | None:
    concat = lone_native_producer(needed(node, 0), "Concat")
    if concat is None:
        return None
    pieces = (needed(concat, index) for index in range(1, len(concat.inputs)))
    return _Joined(node, concat) if any(map(takes_quantizer, pieces)) else None


def _replace_quantize(found: _Joined) -> Replacement:
    """Each piece as integers of the one scale: those that it was through a table, or quantized."""
    quantize, nodes, pieces, tables = found.quantize, list[ir.Node](), [], []
    for index in range(1, len(found.concat.inputs)):
        value = needed(found.concat, index)
        reader = native_producer(value, "Dequantize")
        if reader is None:
            name = f"{quantize.name}.{index - 1}"
            nodes.append(make("Quantize", [value], quantizer(quantize), name))
            pieces.append(nodes[-1].outputs[0])
            tables.append(np.arange(BYTES, dtype=np.uint8))
        else:
            pieces.append(filled(reader, "x"))
            tables.append(requantized(attributes(reader), attributes(quantize)))
    held = stored_tables(found.concat, np.stack(tables))
    made = make("Concat", [held, *pieces], attributes(found.concat), found.concat.name or "")
    return Replacement([*nodes, made], [(quantize.outputs[0], made.outputs[0])])


QUANTIZE_BEFORE_CONCAT = Rule(
    "quantize before a concat",
    frozenset({"Quantize"}),
    _match_quantize,
    never,
    _replace_quantize,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Tables:
    """A Concat through tables, and the places of the pieces whose makers take theirs."""

    concat: ir.Node
    tables: Array
    places: list[int]


def _takes_table(value: ir.Value, concat: ir.Node) -> bool:
    made = value.producer()
    if made is None or not is_openwork(made) or not row_of(made).takes("lookup"):
        return False
    return slot(made, "lookup") is None and only_consumer(value) is concat


def _match_tables(node: ir.Node) -> _Tables | None:
    tables = constant(node.inputs[0])
    if tables is None:
        return None
    same = np.all(tables == np.arange(BYTES), axis=1)
    places = [int(i) for i in np.flatnonzero(~same) if _takes_table(needed(node, int(i) + 1), node)]
    return _Tables(node, tables, places) if places else None


def _replace_tables(found: _Tables) -> Replacement:
    concat, tables = found.concat, found.tables.copy()
    pieces, nodes = list(concat.inputs[1:]), list[ir.Node]()
    for place in found.places:
        made = needed(concat, place + 1).producer()
        assert made is not None
        table = add_initializer(home(concat), f"{made.name}.table", found.tables[place])
        nodes.append(rebuilt(made, {"lookup": table}))
        pieces[place] = nodes[-1].outputs[0]
        tables[place] = np.arange(BYTES)
    held = stored_tables(concat, tables)
    joined = make("Concat", [held, *pieces], attributes(concat), concat.name or "")
    return Replacement([*nodes, joined], [(concat.outputs[0], joined.outputs[0])])


TABLES_INTO_PRODUCTS = Rule(
    "tables of a concat into products",
    frozenset({"Concat"}),
    _match_tables,
    never,
    _replace_tables,
    domain=DOMAIN,
)
