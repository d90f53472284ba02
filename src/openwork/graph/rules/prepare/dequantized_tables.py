"""Rows that are picked of a table of integers, then dequantized: the table is dequantized before.

So `quantize_dynamic` of ONNX Runtime writes word embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import constant, lone_producer, needed, scalar
from openwork.graph.rewrite import Replacement, Rule


@dataclass(frozen=True)
class _Rows:
    """A table of integers of which rows are picked, and dequantized then."""

    node: ir.Node
    gather: ir.Node


def _match_rows(node: ir.Node) -> _Rows | None:
    gather = lone_producer(needed(node, 0), "Gather")
    return _Rows(node, gather) if gather is not None and constant(needed(gather, 0)) is not None else None


def _check_rows(found: _Rows) -> str | None:
    if any(value is not None and scalar(value) is None for value in found.node.inputs[1:]):
        return "its scale and zero point are not one constant number each"
    return None


def _replace_rows(found: _Rows) -> Replacement:
    node, gather = found.node, found.gather
    integers = needed(gather, 0)
    made = ir.Value(shape=integers.shape, type=node.outputs[0].type)
    table = ir.Node(
        "", "DequantizeLinear", [integers, *node.inputs[1:]], outputs=[made], name=f"{node.name}.table"
    )
    rows = ir.Value(shape=node.outputs[0].shape, type=node.outputs[0].type)
    picked = ir.Node(
        "", "Gather", [made, needed(gather, 1)], gather.attributes, outputs=[rows], name=gather.name
    )
    return Replacement([table, picked], [(node.outputs[0], rows)])


DEQUANTIZE_TABLE = Rule(
    "dequantize the table and not its rows",
    frozenset({"DequantizeLinear"}),
    _match_rows,
    _check_rows,
    _replace_rows,
)
