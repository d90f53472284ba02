"""A Q/DQ graph written in the dialect of a target; the arithmetic is `qdq/dialect.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer, set_input
from openwork.graph.model import (
    constant,
    consumers,
    is_onnx,
    operand,
)
from openwork.graph.quantizers.nodes import TYPES
from openwork.qdq.affine import Activation
from openwork.qdq.dialect import ZeroPoints, recoded, refusal
from openwork.qdq.targets import Target


@dataclass(frozen=True, eq=False)
class QuantizedActivation:
    """One QuantizeLinear of the graph: its node, type and zero points."""

    node: ir.Node
    dtype: Activation
    zero_points: ZeroPoints


def conform(model: ir.Model, target: Target) -> None:
    """Write every activation of the graph in the target's type; the numbers it stands for do not change.

    Raises ValueError, naming the activations, where the target's type cannot say what the model says.
    """
    activations = tuple(quantized_activations(model))
    refused = [reason for activation in activations if (reason := _refusal(activation, target))]
    if refused:
        more = f" ({len(refused)} such activations)" if len(refused) > 1 else ""
        raise ValueError(
            f"The model cannot be written for {target.title}, which takes {target.dialect}: "
            f"{refused[0]}{more}. Calibrate it with {target.activation} activations, or export it for "
            "another target."
        )
    for activation in activations:
        _recode(model.graph, activation, target.activation)


def quantized_activations(model: ir.Model) -> Iterator[QuantizedActivation]:
    """Every QuantizeLinear with its zero point; without one it is u8 with 0, as ONNX has it."""
    for node in model.graph:
        if is_onnx(node, "QuantizeLinear"):
            zero_points = constant(operand(node, 2))
            values = np.zeros((), np.uint8) if zero_points is None else zero_points
            yield QuantizedActivation(node, "u8" if values.dtype == np.uint8 else "s8", values)


def _refusal(activation: QuantizedActivation, target: Target) -> str | None:
    """Why the target does not take an activation, or None."""
    name = activation.node.name
    reason = refusal(activation.zero_points, activation.dtype, target)
    if reason is not None:
        return f"{name} {reason}"
    others = {node.op_type for node in consumers(activation.node.outputs[0])} - {"DequantizeLinear"}
    if others and activation.dtype != target.activation:
        return f"the integers of {name} are read by {', '.join(sorted(others))}"
    return None


def _recode(graph: ir.Graph, activation: QuantizedActivation, dtype: Activation) -> None:
    if activation.dtype == dtype:
        return
    zero_points = recoded(activation.zero_points, activation.dtype, dtype)
    assert zero_points is not None
    integers = activation.node.outputs[0]
    stored = add_initializer(graph, f"{activation.node.name}:zero_point", zero_points)
    for node in (activation.node, *consumers(integers)):
        set_input(node, 2, stored)
    integers.type = ir.TensorType(TYPES[dtype])
