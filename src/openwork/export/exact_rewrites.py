"""Exact rewritings of a Q/DQ graph that engines would else do themselves, or fail to.

BatchNormalization after a convolution scales its channels. Of integer weights the scales take the factor, and
the integers stay as they are but for the sign where the factor is negative; float weights are multiplied, and
round once more. Zeros stay zeros.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer, bypass, overwrite, set_input
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    consumers,
    is_onnx,
    lone_producer,
    needed,
    operand,
    producer,
)
from openwork.graph.norms import batch_norm
from openwork.qdq.batch_norm import Double, along_outputs, scaled_integers


def fold_batch_norms(model: ir.Model) -> int:
    """Fold every BatchNormalization that alone reads a convolution with stored weights, integers or floats,
    whose tensors keep their names; how many were.
    """
    nodes = [node for node in model.graph if is_onnx(node, "BatchNormalization")]
    return sum(_fold(model.graph, node) for node in nodes)


def _fold(graph: ir.Graph, node: ir.Node) -> bool:
    convolution = lone_producer(needed(node, 0), "Conv", "ConvTranspose")
    norm = batch_norm(node)
    if convolution is None or norm is None:
        return False
    bias = constant(operand(convolution, 2))
    if bias is None and operand(convolution, 2) is not None:
        return False
    if not _scale_weight(graph, convolution, norm.factor):
        return False
    folded = norm.folded_bias(bias).astype(np.float32)
    set_input(convolution, 2, add_initializer(graph, f"{convolution.name}:bias", folded))
    bypass(node, convolution.outputs[0])
    return True


def _scale_weight(graph: ir.Graph, convolution: ir.Node, factor: Double) -> bool:
    """Let a convolution's weight take the factors of its outputs, if nothing else reads it."""
    dequantize = lone_producer(needed(convolution, 1), "DequantizeLinear")
    if dequantize is None:
        return _scale_floats(convolution, factor)
    return _scale_integers(graph, dequantize, 0 if convolution.op_type == "Conv" else 1, factor)


def _scale_floats(convolution: ir.Node, factor: Double) -> bool:
    value = needed(convolution, 1)
    weight = constant(value)
    if weight is None or weight.dtype != np.float32 or len(value.uses()) > 1:
        return False
    transposed, groups = convolution.op_type == "ConvTranspose", attributes(convolution).get("group", 1)
    scaled = weight * along_outputs(factor, weight.shape, transposed, int(groups))
    overwrite(value, scaled.astype(np.float32))
    return True


def _scale_integers(graph: ir.Graph, dequantize: ir.Node, axis: int, factor: Double) -> bool:
    value = needed(dequantize, 0)
    integers, scale = constant(value), constant(operand(dequantize, 1))
    if integers is None or scale is None or integers.shape[axis] != len(factor):
        return False
    # -128 has no counterpart of the other sign.
    if len(value.uses()) > 1 or integers.min() == -128:
        return False
    signed, scales = scaled_integers(integers, scale, factor, axis)
    overwrite(value, signed)
    set_input(dequantize, 1, add_initializer(graph, f"{dequantize.name}:scale", scales))
    dequantize.attributes["axis"] = ir.AttrInt64("axis", axis)
    return True


def drop_repeated_quantizers(model: ir.Model) -> int:
    """Drop every Q/DQ whose input was rounded by the same scale and zero point just before; how many were.

    Rounding a number that stands on the grid already gives the number back.
    """
    pairs = [node for node in model.graph if is_onnx(node, "QuantizeLinear")]
    return sum(_drop_repeated(model.graph, node) for node in pairs)


def _drop_repeated(graph: ir.Graph, quantize: ir.Node) -> bool:
    before = producer(needed(quantize, 0), "DequantizeLinear")
    after = consumers(quantize.outputs[0])
    if before is None or not _same_map(before, quantize):
        return False
    if any(not is_onnx(node, "DequantizeLinear") or not _same_map(before, node) for node in after):
        return False
    results = (before.outputs[0], *(node.outputs[0] for node in after))
    if sum(value.is_graph_output() for value in results) > 1:
        return False  # one value cannot have the names of two outputs
    for node in after:
        bypass(node, before.outputs[0])
    graph.remove(quantize, safe=True)
    return True


def _same_map(one: ir.Node, other: ir.Node) -> bool:
    """Whether two nodes of Q/DQ have the same scale, zero point and axis."""
    maps = [[_record(constant(operand(node, place))) for place in (1, 2)] for node in (one, other)]
    axes = [node.attributes.get_int("axis", 1) for node in (one, other)]
    return maps[0] == maps[1] and maps[0][0] is not None and axes[0] == axes[1]


def _record(array: Array | None) -> tuple[object, ...] | None:
    return None if array is None else (array.dtype, array.tolist())


def transpose_weights(model: ir.Model) -> frozenset[str]:
    """Store each weight whose DequantizeLinear is transposed as the transposed matrix; their names.

    What is left is a DequantizeLinear right before the MatMul, with the axis of the output channels.
    """
    nodes = [node for node in model.graph if is_onnx(node, "Transpose")]
    names = (_transpose(node) for node in nodes)
    return frozenset(name for name in names if name is not None)


def _transpose(node: ir.Node) -> str | None:
    dequantize = lone_producer(needed(node, 0), "DequantizeLinear")
    weight = needed(dequantize, 0) if dequantize is not None else None
    integers = constant(weight)
    if dequantize is None or weight is None or integers is None or integers.ndim != 2:
        return None
    if len(weight.uses()) > 1 or list(node.attributes.get_ints("perm", [1, 0])) != [1, 0]:
        return None
    overwrite(weight, integers.T)
    axis = dequantize.attributes.get_int("axis", 1)
    dequantize.attributes["axis"] = ir.AttrInt64("axis", 1 - axis % 2)
    bypass(node, dequantize.outputs[0])
    return weight.name
