"""A product of rows whose input was flattened to them, and whose result is unflattened again.

Exporters write a linear layer of [B, L, K] as one of [B * L, K] between two Reshapes. The product works row
by row, so it takes the input as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import (
    dims,
    native_producer,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.slots import filled, rebuilt, slot

_FLATTENS = ("Reshape", "Flatten")


@dataclass(frozen=True)
class _Rows:
    last: ir.Node
    linear: ir.Node
    whole: ir.Value


def _whole(x: ir.Value) -> ir.Value | None:
    """What was flattened to rows."""
    node = producer(x, *_FLATTENS) or native_producer(x, "Reshape")
    return None if node is None else needed(node, 0)


def _match(node: ir.Node) -> _Rows | None:
    linear = native_producer(needed(node, 0), "Linear")
    whole = None if linear is None else _whole(filled(linear, "x"))
    return None if linear is None or whole is None else _Rows(node, linear, whole)


def _check(found: _Rows) -> str | None:
    whole, made = dims(found.whole), dims(found.last.outputs[0])
    rows, result = dims(filled(found.linear, "x")), dims(found.linear.outputs[0])
    if whole is None or made is None or rows is None or result is None or None in (*whole, *made):
        return "the shapes around its rows are not known"
    if len(rows) != 2 or whole[-1] != rows[-1] or (*whole[:-1], result[-1]) != made:
        return "its rows are put together in another shape than that of its input"
    if slot(found.linear, "residual") is not None or only_consumer(found.linear.outputs[0]) is None:
        return "its rows are read as they are"
    return None


def _replace(found: _Rows) -> Replacement:
    made = rebuilt(found.linear, {"x": found.whole})
    return Replacement([made], [(found.last.outputs[0], made.outputs[0])])


ROWS = Rule("rows of a product", frozenset({"Reshape"}), _match, _check, _replace)
