"""Exact rewritings of a Q/DQ graph that engines would else do themselves, or fail to.

BatchNormalization after a convolution with integer weights scales its channels: the scales of the weights
take the factor, and the integers stay as they are but for the sign where the factor is negative. Zeros stay
zeros.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.qdq.dialect import constant, store

CONVOLUTIONS = ("Conv", "ConvTranspose")
SMALLEST = np.finfo(np.float32).tiny


def fold_batch_norms(model: ir.Model) -> int:
    """Fold every BatchNormalization that alone reads a convolution with integer weights; how many were."""
    nodes = [node for node in model.graph if node.op_type == "BatchNormalization"]
    return sum(_fold(model.graph, node) for node in nodes)


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    convolution = _only_producer(norm.inputs[0], CONVOLUTIONS)
    weight = _only_producer(convolution.inputs[1], ("DequantizeLinear",)) if convolution else None
    if convolution is None or weight is None or weight.inputs[0] is None:
        return False
    factor, shift = _affine(norm)
    channels = 0 if convolution.op_type == "Conv" else 1
    integers, scale = constant(weight.inputs[0]), constant(weight.inputs[1])
    if integers is None or scale is None or integers.shape[channels] != len(factor):
        return False
    if len(weight.inputs[0].uses()) > 1 or integers.min() == -128:
        return False
    _scale_weight(graph, weight, channels, factor)
    bias = constant(convolution.inputs[2]) if len(convolution.inputs) > 2 else None
    moved = shift if bias is None else bias * factor + shift
    convolution.resize_inputs(3)
    convolution.replace_input_with(2, store(graph, f"{convolution.name}:bias", moved.astype(np.float32)))
    _replace(graph, norm, convolution.outputs[0])
    return True


def _replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let `value` stand for the node's output, under its name if the graph returns it, and drop the node."""
    old = node.outputs[0]
    if old.is_graph_output():
        value.name = old.name
    # The legacy exporter leaves types out, and all that is folded here is binary32.
    value.type = old.type or value.type or ir.TensorType(ir.DataType.FLOAT)
    value.shape = old.shape or value.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _only_producer(value: ir.Value | None, kinds: tuple[str, ...]) -> ir.Node | None:
    """The node of one of the kinds that makes `value`, if that is read once only."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type not in kinds or len(value.uses()) > 1:
        return None
    return None if value.is_graph_output() else node


def _affine(norm: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """Factor and shift, f64 [C], of a BatchNormalization with fixed statistics."""
    gamma, beta, mean, variance = (np.asarray(constant(value), np.float64) for value in norm.inputs[1:5])
    epsilon = norm.attributes.get_float("epsilon", 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor


def drop_repeated_quantizers(model: ir.Model) -> int:
    """Drop every Q/DQ whose input was rounded by the same scale and zero point just before; how many were.

    Rounding a number that stands on the grid already gives the number back.
    """
    pairs = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    return sum(_drop_repeated(model.graph, node) for node in pairs)


def _drop_repeated(graph: ir.Graph, quantize: ir.Node) -> bool:
    before = quantize.inputs[0].producer() if quantize.inputs[0] is not None else None
    after = [user for user, _ in quantize.outputs[0].uses()]
    if before is None or before.op_type != "DequantizeLinear" or not _same_map(before, quantize):
        return False
    if any(node.op_type != "DequantizeLinear" or not _same_map(before, node) for node in after):
        return False
    for node in after:
        _replace(graph, node, before.outputs[0])
    graph.remove(quantize, safe=True)
    return True


def _same_map(one: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes of Q/DQ have the same scale, zero point and axis."""
    maps = [[_record(constant(value)) for value in node.inputs[1:3]] for node in (one, other)]
    axes = [node.attributes.get_int("axis", 1) for node in (one, other)]
    return maps[0] == maps[1] and maps[0][0] is not None and axes[0] == axes[1]


def transpose_weights(model: ir.Model) -> frozenset[str]:
    """Store each weight whose DequantizeLinear is transposed as the transposed matrix; their names.

    What is left is a DequantizeLinear right before the MatMul, with the axis of the output channels.
    """
    nodes = [node for node in model.graph if node.op_type == "Transpose"]
    names = (_transpose(model.graph, node) for node in nodes)
    return frozenset(name for name in names if name is not None)


def _transpose(graph: ir.Graph, node: ir.Node) -> str | None:
    dequantize = _only_producer(node.inputs[0], ("DequantizeLinear",))
    weight = dequantize.inputs[0] if dequantize is not None else None
    integers = constant(weight)
    if dequantize is None or weight is None or integers is None or integers.ndim != 2:
        return None
    if len(weight.uses()) > 1 or list(node.attributes.get_ints("perm", [1, 0])) != [1, 0]:
        return None
    transposed = np.ascontiguousarray(integers.T)
    weight.const_value, weight.shape = ir.tensor(transposed, name=weight.name), ir.Shape(transposed.shape)
    axis = dequantize.attributes.get_int("axis", 1)
    dequantize.attributes["axis"] = ir.AttrInt64("axis", 1 - axis % 2)
    _replace(graph, node, dequantize.outputs[0])
    return weight.name


def _record(array: np.ndarray | None) -> tuple[object, ...] | None:
    return None if array is None else (array.dtype, array.tolist())


def _scale_weight(graph: ir.Graph, node: ir.Node, axis: int, factor: np.ndarray) -> None:
    weight, integers, scale = node.inputs[0], constant(node.inputs[0]), constant(node.inputs[1])
    assert weight is not None
    assert integers is not None
    assert scale is not None
    scaled = np.broadcast_to(scale, factor.shape) * np.abs(factor)
    dead = scaled < SMALLEST
    sign = np.where(dead, 0, np.where(factor < 0, -1, 1)).astype(np.int8)
    shape = [1] * integers.ndim
    shape[axis] = -1
    weight.const_value = ir.tensor(integers * sign.reshape(shape), name=weight.name)
    stored = store(graph, f"{node.name}:scale", np.where(dead, 1, scaled).astype(np.float32))
    node.replace_input_with(1, stored)
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
