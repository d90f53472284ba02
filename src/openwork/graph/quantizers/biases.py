"""Biases as INT32 with a DequantizeLinear, as ONNX Runtime's integer convolutions take them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer, set_input
from openwork.graph.model import (
    constant,
    is_onnx,
    operand,
)
from openwork.graph.quantizers.nodes import dequantizer, stored_scale
from openwork.qdq.biases import quantized_bias

BIASED = ("Conv", "ConvTranspose", "Gemm")


def quantize_biases(model: ir.Model) -> int:
    """Store the bias of every layer with integer input and weight in units of x_scale * weight_scale.

    A bias that INT32 cannot hold stays float. Returns how many were stored.
    """
    return sum(_quantize(model.graph, node) for node in list(model.graph) if is_onnx(node, *BIASED))


def _quantize(graph: ir.Graph, node: ir.Node) -> bool:
    bias = constant(operand(node, 2))
    x_scale, weight_scale = (stored_scale(operand(node, place)) for place in (0, 1))
    if bias is None or bias.dtype != np.float32 or x_scale is None or weight_scale is None:
        return False
    if x_scale.ndim or weight_scale.shape not in ((), bias.shape):
        return False
    stored = quantized_bias(bias, x_scale, weight_scale)
    if stored is None:
        return False
    integers = add_initializer(graph, f"{node.name}:bias_integers", stored[0])
    unit = add_initializer(graph, f"{node.name}:bias_scale", stored[1])
    dequantize = dequantizer(integers, unit, 0, f"{node.name}:bias")
    graph.insert_before(node, dequantize)
    set_input(node, 2, dequantize.outputs[0])
    return True
