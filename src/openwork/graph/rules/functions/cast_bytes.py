"""Bytes of images as floats: a Cast is a Dequantize of scale 1."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.layout import IMAGE_AXES
from openwork.graph.model import attributes, constant, dims, make, needed
from openwork.graph.rewrite import Replacement, Rule, never


def _match(node: ir.Node) -> ir.Node | None:
    value = needed(node, 0)
    bytes_to_floats = value.dtype == ir.DataType.UINT8 and attributes(node)["to"] == ir.DataType.FLOAT
    if not bytes_to_floats or constant(value) is not None or len(dims(value) or ()) != IMAGE_AXES:
        return None
    return node


def _replace(node: ir.Node) -> Replacement:
    values = {"x_scale": 1.0, "x_zero_point": 0}
    made = make("Dequantize", [needed(node, 0)], values, node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


CAST_BYTES = Rule("cast of bytes", frozenset({"Cast"}), _match, never, _replace)
