"""The operands of standard ONNX nodes, as several rooms of rules read them."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import Array, attributes, constant, dims, needed, operand, producer, scalar

EXPONENT_ERROR = 1e-6
"""A quantizer of constants gives 2 back with a rounding error."""


def split_constant(node: ir.Node | None) -> tuple[ir.Value, Array] | None:
    """(the computed operand, the constant one) of a binary node with exactly one constant operand.

    None too where the constant has more axes than the other, which the result has then.
    """
    if node is None:
        return None
    first, second = needed(node, 0), needed(node, 1)
    for value, other in ((first, constant(second)), (second, constant(first))):
        if other is not None and constant(value) is None:
            return (value, other) if keeps_axes(value, other.ndim) else None
    return None


def keeps_axes(value: ir.Value, axes: int) -> bool:
    """Whether an elementwise operator of the value and an operand of so many axes has the value's number."""
    shape = dims(value)
    return axes <= (1 if shape is None else len(shape))


def is_square(value: ir.Value | None) -> ir.Value | None:
    """d where the value is d * d or d to the power 2."""
    node = producer(value, "Mul", "Pow")
    if node is None:
        return None
    base = needed(node, 0)
    if node.op_type == "Mul":
        return base if needed(node, 1) is base else None
    exponent = scalar(needed(node, 1))
    return base if exponent is not None and abs(exponent - 2) < EXPONENT_ERROR else None


def reduces_last_axis(node: ir.Node, keep: bool = True) -> bool:
    """Whether a Reduce* node works on the last axis alone and keeps it (as size 1) or not."""
    found = attributes(node)
    given = constant(operand(node, 1))
    axes = found.get("axes") if given is None else given.reshape(-1).tolist()
    shape = dims(node.inputs[0])
    if axes is None or len(axes) != 1 or bool(found.get("keepdims", 1)) != keep:
        return False
    return axes[0] == -1 or (shape is not None and axes[0] == len(shape) - 1)
