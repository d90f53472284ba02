"""Layer normalization, as one ONNX operator or written out, into LayerNorm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    dims,
    make,
    needed,
    only_consumer,
    operand,
    producer,
)
from openwork.graph.operands import is_square, reduces_last_axis, split_constant
from openwork.graph.rewrite import Replacement, Rule, home


@dataclass(frozen=True)
class _Norm:
    node: ir.Node
    x: ir.Value
    gamma: Array | None
    beta: Array | None
    epsilon: float
    last_axis: bool


def _match_operator(node: ir.Node) -> _Norm | None:
    found, x = attributes(node), needed(node, 0)
    shape = dims(x)
    axis = found.get("axis", -1)
    last = axis == -1 or (shape is not None and axis == len(shape) - 1)
    gamma = constant(needed(node, 1))
    beta = constant(operand(node, 2)) if operand(node, 2) is not None else _zeros(gamma)
    return _Norm(node, x, gamma, beta, found.get("epsilon", 1e-5), last)


def _zeros(like: Array | None) -> Array | None:
    return None if like is None else np.zeros_like(like)


def _check(found: _Norm) -> str | None:
    shape = dims(found.x)
    if not found.last_axis:
        return "it normalizes over more than the last axis"
    if shape is None or not isinstance(shape[-1], int) or found.x.dtype != ir.DataType.FLOAT:
        return "its input is not float32 with a known last dimension"
    if found.gamma is None or found.beta is None:
        return "its scale and shift are not constants"
    if found.gamma.size not in (1, shape[-1]) or found.beta.size not in (1, shape[-1]):
        return f"its scale and shift do not have one number for each of the {shape[-1]} channels"
    if any(output.uses() or output.is_graph_output() for output in found.node.outputs[1:]):
        return "its mean or its deviation is read"
    return None


def _spread(array: Array | None, width: object) -> Array:
    assert array is not None
    assert isinstance(width, int)
    return np.broadcast_to(array.reshape(-1), (width,)).astype(np.float32)


def _replace(found: _Norm) -> Replacement:
    graph, name = home(found.node), found.node.name or ""
    width = (dims(found.x) or ())[-1]
    gamma, beta = (
        add_initializer(graph, f"{name}.{label}", _spread(array, width))
        for label, array in (("gamma", found.gamma), ("beta", found.beta))
    )
    made = make("LayerNorm", [found.x, gamma, beta], {"epsilon": float(found.epsilon)}, name)
    made.resize_outputs(1)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])], before=found.node)


LAYER_NORM = Rule("layer norm", frozenset({"LayerNormalization"}), _match_operator, _check, _replace)


def _deviation(value: ir.Value | None) -> tuple[ir.Value, float] | None:
    """(d, epsilon) where the value is sqrt(mean(d^2) + epsilon)."""
    root = producer(value, "Sqrt")
    shifted = split_constant(producer(operand(root, 0), "Add")) if root is not None else None
    if shifted is None or shifted[1].size != 1:
        return None
    mean = producer(shifted[0], "ReduceMean")
    if mean is None or not reduces_last_axis(mean):
        return None
    d = is_square(needed(mean, 0))
    return None if d is None else (d, float(shifted[1].reshape(())))


def _normalized(value: ir.Value) -> tuple[ir.Value, float] | None:
    """(d, epsilon) where the value is d / sqrt(mean(d^2) + epsilon), in either spelling."""
    node = producer(value, "Div", "Mul")
    if node is None:
        return None
    if node.op_type == "Div":
        found = _deviation(needed(node, 1))
        return found if found is not None and found[0] is needed(node, 0) else None
    for d, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        inverse = producer(other, "Reciprocal")
        found = _deviation(operand(inverse, 0)) if inverse is not None else None
        if found is not None and found[0] is d:
            return found
    return None


def _centred(d: ir.Value) -> ir.Value | None:
    """x where the value is x - mean(x)."""
    node = producer(d, "Sub")
    mean = producer(operand(node, 1), "ReduceMean") if node is not None else None
    if node is None or mean is None or not reduces_last_axis(mean) or mean.inputs[0] is not node.inputs[0]:
        return None
    return needed(node, 0)


def _scaled_by(value: ir.Value, op_type: str, width: object) -> tuple[ir.Value, Array | None]:
    """The value after a Mul (or Add) of constants per channel, and these; else the value itself."""
    reader = only_consumer(value)
    split = split_constant(producer(reader.outputs[0], op_type)) if reader is not None else None
    if reader is None or split is None or split[0] is not value or not _per_channel(split[1], width):
        return value, None
    return reader.outputs[0], split[1]


def _per_channel(array: Array, width: object) -> bool:
    return array.size == 1 or (array.size == width and array.shape[-1] == width)


def _match_written_out(node: ir.Node) -> _Norm | None:
    found = _normalized(node.outputs[0])
    x = _centred(found[0]) if found is not None else None
    if found is None or x is None:
        return None
    width = (dims(x) or (None,))[-1]
    scaled, gamma = _scaled_by(node.outputs[0], "Mul", width)
    shifted, beta = _scaled_by(scaled, "Add", width)
    last = shifted.producer()
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    return _Norm(
        last or node, x, one if gamma is None else gamma, zero if beta is None else beta, found[1], True
    )


LAYER_NORM_WRITTEN_OUT = Rule(
    "layer norm written out", frozenset({"Div", "Mul"}), _match_written_out, _check, _replace
)
