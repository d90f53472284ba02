"""ReLU and GELU in their spellings, Add of equal shapes, as steps of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.polynomial import polynomial

from openwork.graph.model import attributes, constant, make, needed, operand, producer, same_dims, scalar
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule

TOLERANCE = 1e-6
"""Relative: the exporters round these constants to binary32."""


@dataclass(frozen=True)
class _Elementwise:
    node: ir.Node
    op_type: str
    inputs: tuple[ir.Value, ...]
    reason: str | None = None


def _replace(found: _Elementwise) -> Replacement:
    made = make(found.op_type, list(found.inputs), {}, found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


def _check(found: _Elementwise) -> str | None:
    if any(value.dtype != ir.DataType.FLOAT for value in found.inputs):
        return "its input is not float32"
    return found.reason


def _match_gelu(node: ir.Node) -> _Elementwise | None:
    tanh = attributes(node).get("approximate", "none") == "tanh"
    return _Elementwise(node, "GeluTanh" if tanh else "Gelu", (needed(node, 0),))


GELU = Rule("gelu", frozenset({"Gelu"}), _match_gelu, _check, _replace)


def _factors(value: ir.Value, depth: int = 3) -> tuple[list[ir.Value], float]:
    """The computed factors of a product, and the product of its constant ones (division included)."""
    node = producer(value, "Mul", "Div") if depth else None
    if node is None:
        return [value], 1.0
    split = split_constant(node)
    if (
        split is not None
        and split[1].size == 1
        and (node.op_type == "Mul" or constant(needed(node, 1)) is not None)
    ):
        inner, number = _factors(split[0], depth - 1)
        factor = float(split[1].reshape(()))
        return inner, number * factor if node.op_type == "Mul" else number / factor
    if node.op_type == "Div":
        return [value], 1.0
    left, first = _factors(needed(node, 0), depth - 1)
    right, second = _factors(needed(node, 1), depth - 1)
    return left + right, first * second


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE)


def _erf_of(value: ir.Value) -> ir.Value | None:
    """x where the value is 1 + erf(x / sqrt(2))."""
    shifted = split_constant(producer(value, "Add"))
    if shifted is None or shifted[1].size != 1 or not _close(float(shifted[1].reshape(())), 1.0):
        return None
    erf = producer(shifted[0], "Erf")
    if erf is None:
        return None
    inner, number = _factors(needed(erf, 0))
    return inner[0] if len(inner) == 1 and _close(number, math.sqrt(0.5)) else None


TANH_CUBIC = (0.0, math.sqrt(2 / math.pi), 0.0, 0.044715 * math.sqrt(2 / math.pi))
"""What GELU's tanh approximation takes the tanh of: coefficients of x, lowest power first."""


def _polynomial(value: ir.Value, x: ir.Value, depth: int = 8) -> np.ndarray | None:
    """The coefficients of a value that sums, products and powers of x make, lowest power first, or None."""
    if value is x:
        return np.array([0.0, 1.0])
    stored = constant(value)
    if stored is not None:
        return stored.reshape(1).astype(np.float64) if stored.size == 1 else None
    node = producer(value, "Add", "Mul", "Pow") if depth else None
    if node is None:
        return None
    first, second = (_polynomial(needed(node, index), x, depth - 1) for index in (0, 1))
    if first is None or second is None:
        return None
    if node.op_type == "Pow":
        power = second[0]
        whole = len(second) == 1 and power in (2, 3)
        return np.asarray(polynomial.polypow(first, int(power))) if whole else None
    combine = polynomial.polyadd if node.op_type == "Add" else polynomial.polymul
    return np.asarray(combine(first, second))


def _is_tanh_of(value: ir.Value, x: ir.Value) -> bool:
    """Whether the value is 1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))."""
    shifted = split_constant(producer(value, "Add"))
    if shifted is None or shifted[1].size != 1 or not _close(float(shifted[1].reshape(())), 1.0):
        return False
    tanh = producer(shifted[0], "Tanh")
    found = None if tanh is None else _polynomial(needed(tanh, 0), x)
    return found is not None and len(found) == len(TANH_CUBIC) and all(map(_close, found, TANH_CUBIC))


def _match_written_gelu(node: ir.Node) -> _Elementwise | None:
    inner, number = _factors(node.outputs[0])
    if len(inner) != 2 or not _close(number, 0.5):
        return None
    for x, other in (inner, inner[::-1]):
        if _erf_of(other) is x:
            return _Elementwise(node, "Gelu", (x,))
        if _is_tanh_of(other, x):
            return _Elementwise(node, "GeluTanh", (x,))
    return None


GELU_WRITTEN_OUT = Rule("gelu written out", frozenset({"Mul", "Div"}), _match_written_gelu, _check, _replace)


def _match_relu(node: ir.Node) -> _Elementwise | None:
    if node.op_type == "Relu":
        return _Elementwise(node, "Relu", (needed(node, 0),))
    low, high = operand(node, 1), operand(node, 2)
    if low is None or high is not None or scalar(low) != 0.0:
        return None
    return _Elementwise(node, "Relu", (needed(node, 0),))


RELU = Rule("relu", frozenset({"Relu", "Clip", "Max"}), _match_relu, _check, _replace)


def _match_add(node: ir.Node) -> _Elementwise | None:
    a, b = needed(node, 0), needed(node, 1)
    if a.dtype != ir.DataType.FLOAT or b.dtype != ir.DataType.FLOAT:
        return None
    reason = None
    if constant(a) is not None or constant(b) is not None:
        reason = "one of its operands is a constant"
    elif not same_dims(a, b):
        reason = "its operands do not have the same known shape"
    return _Elementwise(node, "Add", (a, b), reason)


ADD = Rule("add", frozenset({"Add"}), _match_add, _check, _replace)
