"""Biases as INT32 with a DequantizeLinear, as ONNX Runtime's integer convolutions take them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.qdq.dialect import constant, store

BIASED = ("Conv", "ConvTranspose", "Gemm")
LIMIT = 2**31 - 1


def quantize_biases(model: ir.Model) -> int:
    """Store the bias of every layer with integer input and weight in units of x_scale * weight_scale.

    bias ~ rint(bias / (x_scale * weight_scale)), which is off by half such a unit at most. A bias that INT32
    cannot hold stays float. Returns how many were stored.
    """
    return sum(_quantize(model.graph, node) for node in list(model.graph) if node.op_type in BIASED)


def _quantize(graph: ir.Graph, node: ir.Node) -> bool:
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scales = [_scale(value) for value in node.inputs[:2]]
    if bias is None or bias.dtype != np.float32 or scales[0] is None or scales[1] is None:
        return False
    if scales[0].ndim or scales[1].shape not in ((), bias.shape):
        return False
    unit = np.broadcast_to(scales[0] * scales[1], bias.shape).astype(np.float32)
    integers = np.rint(bias.astype(np.float64) / unit)
    if bool((np.abs(integers) > LIMIT).any()) or bool((unit < np.finfo(np.float32).tiny).any()):
        return False
    inputs = (
        store(graph, f"{node.name}:bias_integers", integers.astype(np.int32)),
        store(graph, f"{node.name}:bias_scale", unit),
    )
    dequantize = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{node.name}:bias/DequantizeLinear")
    dequantize.outputs[0].name = f"{node.name}:bias"
    dequantize.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    dequantize.outputs[0].shape = inputs[1].shape
    graph.insert_before(node, dequantize)
    node.replace_input_with(2, dequantize.outputs[0])
    return True


def _scale(value: ir.Value | None) -> np.ndarray | None:
    """The scale of the DequantizeLinear that made `value`."""
    node = value.producer() if value is not None else None
    return constant(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
