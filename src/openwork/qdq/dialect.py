"""The dialect of a Q/DQ graph: what a target takes, and the exact rewritings between dialects.

An s8 activation with zero point z is the u8 one with zero point z + 128: every integer moves by 128 and
stands for the same number, at the ends of the range too. So a symmetric model fits both targets, and an
asymmetric one TensorRT only where its zero point happens to be 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.qdq.affine import Activation
from openwork.qdq.targets import Target

SHIFT = 128
TYPES: dict[str, tuple[ir.DataType, type[np.integer]]] = {
    "s8": (ir.DataType.INT8, np.int8),
    "u8": (ir.DataType.UINT8, np.uint8),
}


@dataclass(frozen=True, eq=False)
class QuantizedActivation:
    """One QuantizeLinear of the graph: its node, type and zero points."""

    node: ir.Node
    dtype: Activation
    zero_points: np.ndarray

    def recoded(self, dtype: Activation) -> np.ndarray | None:
        """The zero points of the same map in another type; None where the type cannot hold them."""
        if dtype == self.dtype:
            return self.zero_points
        moved = self.zero_points.astype(np.int32) + (SHIFT if dtype == "u8" else -SHIFT)
        limits = np.iinfo(TYPES[dtype][1])
        return moved if bool(((moved >= limits.min) & (moved <= limits.max)).all()) else None


def conform(model: ir.Model, target: Target) -> None:
    """Write every activation of the graph in the target's type; the numbers it stands for do not change.

    Raises ValueError, naming the activations, where the target's type cannot say what the model says.
    """
    activations = tuple(quantized_activations(model))
    refused = [reason for activation in activations if (reason := refusal(activation, target))]
    if refused:
        raise ValueError(
            f"The model cannot be written for {target.title}, which takes {target.dialect}: {refused[0]}"
            + (f" ({len(refused)} such activations)" if len(refused) > 1 else "")
            + f". Calibrate it with {target.activation} activations, or export it for another target."
        )
    for activation in activations:
        _recode(model.graph, activation, target.activation)


def refusal(activation: QuantizedActivation, target: Target) -> str | None:
    """Why the target does not take an activation, or None."""
    zero_points = activation.recoded(target.activation)
    name = activation.node.name
    if zero_points is None or (target.symmetric and zero_points.any()):
        shown = ", ".join(map(str, np.unique(activation.zero_points)[:4]))
        return f"{name} is {activation.dtype} with the zero point {shown}"
    others = {node.op_type for node in _users(activation.node)} - {"DequantizeLinear"}
    if others and activation.dtype != target.activation:
        return f"the integers of {name} are read by {', '.join(sorted(others))}"
    return None


def quantized_activations(model: ir.Model) -> Iterator[QuantizedActivation]:
    """Every QuantizeLinear with its zero point; without one it is u8 with 0, as ONNX has it."""
    for node in model.graph:
        if node.op_type == "QuantizeLinear":
            zero_points = constant(node.inputs[2]) if len(node.inputs) > 2 else None
            values = np.zeros((), np.uint8) if zero_points is None else zero_points
            yield QuantizedActivation(node, "u8" if values.dtype == np.uint8 else "s8", values)


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value's numbers where the graph stores them."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _users(node: ir.Node) -> list[ir.Node]:
    return [user for user, _ in node.outputs[0].uses()]


def _recode(graph: ir.Graph, activation: QuantizedActivation, dtype: Activation) -> None:
    if activation.dtype == dtype:
        return
    zero_points = activation.recoded(dtype)
    assert zero_points is not None
    kind, numpy_type = TYPES[dtype]
    stored = store(graph, f"{activation.node.name}:zero_point", zero_points.astype(numpy_type))
    for node in (activation.node, *_users(activation.node)):
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, stored)
    activation.node.outputs[0].type = ir.TensorType(kind)


def store(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the graph."""
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value
