"""Division by the Euclidean norm over the last axis, in its spellings, into L2Normalize."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import attributes, dims, make, needed, operand, producer, scalar
from openwork.graph.operands import is_square, reduces_last_axis, split_constant
from openwork.graph.rewrite import Replacement, Rule

ZERO_NORM = 1e-12
"""Epsilon where the model has none: a row of zeros gives zeros instead of 0 / 0."""


@dataclass(frozen=True)
class _Normalize:
    node: ir.Node
    x: ir.Value
    epsilon: float
    last_axis: bool
    reason: str | None = None


def _lower_bound(value: ir.Value) -> tuple[ir.Value, float] | None:
    """(v, epsilon) where the value is max(v, epsilon)."""
    node = producer(value, "Clip", "Max")
    if node is None:
        return None
    if node.op_type == "Max":
        split = split_constant(node) if len(node.inputs) == 2 else None
        return (split[0], float(split[1].reshape(()))) if split is not None and split[1].size == 1 else None
    found = attributes(node)
    low = scalar(operand(node, 1)) if operand(node, 1) is not None else found.get("min")
    unbounded = operand(node, 2) is None and "max" not in found
    return (needed(node, 0), float(low)) if low is not None and unbounded else None


def _norm_of(value: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """(the reduction, x) where the value is the Euclidean norm of x over some axes."""
    node = producer(value, "ReduceL2", "Sqrt")
    if node is None or node.op_type == "ReduceL2":
        return None if node is None else (node, needed(node, 0))
    total = producer(needed(node, 0), "ReduceSum", "ReduceSumSquare")
    if total is None:
        return None
    x = needed(total, 0) if total.op_type == "ReduceSumSquare" else is_square(needed(total, 0))
    return None if x is None else (total, x)


def _through_expand(value: ir.Value) -> ir.Value:
    """What an Expand spreads: the division would broadcast it itself."""
    node = producer(value, "Expand")
    return value if node is None else needed(node, 0)


def _match_division(node: ir.Node) -> _Normalize | None:
    divisor, epsilon = _through_expand(needed(node, 1)), 0.0
    bound = _lower_bound(divisor)
    if bound is not None:
        divisor, epsilon = bound
    shifted = split_constant(producer(divisor, "Add"))
    reason = None
    if shifted is not None:
        divisor = shifted[0]
        reason = "it adds its epsilon to the norm; L2Normalize bounds the norm from below by it"
    found = _norm_of(divisor)
    if found is None or found[1] is not needed(node, 0):
        return None
    return _Normalize(node, found[1], epsilon or ZERO_NORM, reduces_last_axis(found[0]), reason)


def _match_operator(node: ir.Node) -> _Normalize | None:
    found, x = attributes(node), needed(node, 0)
    shape, axis = dims(x), found.get("axis", -1)
    last = axis == -1 or (shape is not None and axis == len(shape) - 1)
    reason = None if found.get("p", 2) == 2 else "it divides by another norm than the Euclidean one"
    return _Normalize(node, x, ZERO_NORM, last, reason)


def _check(found: _Normalize) -> str | None:
    if found.x.dtype != ir.DataType.FLOAT:
        return "its input is not float32"
    if not found.last_axis:
        return "it normalizes over other axes than the last one alone, or drops that axis"
    return found.reason


def _replace(found: _Normalize) -> Replacement:
    made = make("L2Normalize", [found.x], {"epsilon": found.epsilon}, found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


L2_NORMALIZE = Rule("l2 normalize", frozenset({"Div"}), _match_division, _check, _replace)
LP_NORMALIZE = Rule("lp normalization", frozenset({"LpNormalization"}), _match_operator, _check, _replace)
