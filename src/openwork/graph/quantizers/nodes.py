"""QuantizeLinear and DequantizeLinear: made, and read."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.edit import onnx_node
from openwork.graph.model import Array, constant, operand, producer
from openwork.qdq.affine import Activation

TYPES: dict[str, ir.DataType] = {"s8": ir.DataType.INT8, "u8": ir.DataType.UINT8}


def quantizer(
    value: ir.Value, scale: ir.Value, zero_point: ir.Value, dtype: Activation, name: str
) -> tuple[ir.Node, ir.Node]:
    """A QuantizeLinear of `value` and the DequantizeLinear behind it, called `name`/QuantizeLinear and so on.

    scale, zero_point: f32 and integers of `dtype`, of one element each.
    """
    quantize = onnx_node(
        "QuantizeLinear", (value, scale, zero_point), f"{name}/QuantizeLinear", TYPES[dtype], value
    )
    read = (quantize.outputs[0], scale, zero_point)
    return quantize, onnx_node("DequantizeLinear", read, f"{name}/DequantizeLinear", like=value)


def dequantizer(integers: ir.Value, scale: ir.Value, axis: int, name: str) -> ir.Node:
    """A DequantizeLinear of stored integers, with zero point 0 and scales along `axis`."""
    return onnx_node(
        "DequantizeLinear", (integers, scale), f"{name}/DequantizeLinear", like=integers, axis=axis
    )


def stored_scale(value: ir.Value | None) -> Array | None:
    """The scale of the DequantizeLinear that makes `value`; None for anything else or a computed scale."""
    node = producer(value, "DequantizeLinear")
    return constant(operand(node, 1)) if node is not None else None
