"""A product of two computed values of the same shape, as in the gates of feed-forward layers."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import constant, make, needed, same_dims
from openwork.graph.rewrite import Replacement, Rule


def _match(node: ir.Node) -> ir.Node | None:
    """Constants are left to the rules that take them into what makes or reads the value."""
    a, b = needed(node, 0), needed(node, 1)
    computed = constant(a) is None and constant(b) is None
    floats = a.dtype == b.dtype == ir.DataType.FLOAT
    return node if computed and floats and same_dims(a, b) else None


def _replace(node: ir.Node) -> Replacement:
    made = make("Multiply", [needed(node, 0), needed(node, 1)], {}, node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


MULTIPLY = Rule("multiply", frozenset({"Mul"}), _match, lambda _: None, _replace)
