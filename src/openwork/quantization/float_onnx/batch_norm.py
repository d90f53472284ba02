"""BatchNormalization folded into the convolution before it, and constants into initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnxscript.optimizer import fold_constants

from openwork.graph.model import attributes, constant, graph_of, needed, only_consumer, operand, producer
from openwork.quantization.float_onnx.layers import CONVOLUTIONS

Array = NDArray[Any]
_LARGEST = 1 << 31


def fold(model: ir.Model) -> list[str]:
    """Fold what can be computed now, in place; the names of the folded normalizations.

    A normalization whose input has other readers, or whose numbers are computed, stays.
    """
    fold_constants(model, input_size_limit=_LARGEST, output_size_limit=_LARGEST)
    return [
        node.name or "" for node in list(model.graph) if node.op_type == "BatchNormalization" and _fold(node)
    ]


def _fold(node: ir.Node) -> bool:
    layer = producer(needed(node, 0), *CONVOLUTIONS)
    numbers = [constant(operand(node, i)) for i in range(1, 5)]
    weight = constant(operand(layer, 1)) if layer is not None else None
    if layer is None or weight is None or any(n is None for n in numbers) or _training(node):
        return False
    if only_consumer(needed(node, 0)) is not node or weight.dtype != np.float32:
        return False
    bias = constant(operand(layer, 2))
    if bias is None and operand(layer, 2) is not None:
        return False
    epsilon = float(attributes(node).get("epsilon", 1e-5))
    scale, shift = _affine([n for n in numbers if n is not None], epsilon)
    new_bias = shift + (0.0 if bias is None else bias.astype(np.float64) * scale)
    store_tensor(layer, 1, _scaled(layer, weight, scale), "weight")
    store_tensor(layer, 2, new_bias.astype(np.float32), "bias")
    _bypass(node, layer)
    return True


def _affine(numbers: list[Array], epsilon: float) -> tuple[Array, Array]:
    """Scale and shift of y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, in binary64."""
    gamma, beta, mean, variance = (n.astype(np.float64) for n in numbers)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


def _scaled(layer: ir.Node, weight: Array, scale: Array) -> Array:
    if layer.op_type == "Conv":
        return (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    groups = int(attributes(layer).get("group", 1))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    shaped = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    return (split * shaped).reshape(weight.shape).astype(np.float32)


def _training(node: ir.Node) -> bool:
    return bool(attributes(node).get("training_mode", 0)) or any(v.uses() for v in node.outputs[1:])


def store_tensor(layer: ir.Node, place: int, array: Array, what: str) -> None:
    """Let a layer read `array` at one place; under the old tensor's name where the layer alone holds that."""
    value = operand(layer, place)
    graph = graph_of(layer)
    # The old name goes on where this layer alone holds the tensor: users and metadata know it.
    alone = value is not None and len(list(value.uses())) == 1
    name = value.name if alone and value is not None else f"{layer.name or layer.op_type}.{what}.folded"
    if alone and value is not None:
        value.const_value = ir.tensor(array, name=name)
        return
    new = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.FLOAT))
    new.const_value = ir.tensor(array, name=name)
    graph.register_initializer(new)
    if len(layer.inputs) <= place:
        layer.resize_inputs(place + 1)
    layer.replace_input_with(place, new)


def _bypass(node: ir.Node, layer: ir.Node) -> None:
    """Let the convolution make what the normalization made, under that name."""
    graph, old, new = graph_of(node), layer.outputs[0], node.outputs[0]
    name = new.name
    old.shape = new.shape
    for use in list(new.uses()):
        use.node.replace_input_with(use.idx, old)
    for i, output in enumerate(graph.outputs):
        if output is new:
            graph.outputs[i] = old
    graph.remove(node, safe=True)
    old.name = name
