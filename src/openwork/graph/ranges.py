"""Between which numbers a value provably lies, as far as its makers show: interval arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from openwork.graph.model import attributes, constant, is_onnx, is_openwork, needed, operand, scalar
from openwork.graph.operands import is_square

Range = tuple[float, float]

EVERYTHING: Range = (-math.inf, math.inf)
DEPTH = 12

_SAME = (
    "Reshape",
    "Transpose",
    "Unsqueeze",
    "Squeeze",
    "Flatten",
    "Expand",
    "Identity",
    "Slice",
    "Gather",
    "Split",
    "MaxPool",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
)
"""Operators whose results lie where the elements of their first operand do."""

_UNIT: Range = (0.0, 1.0)
_FIXED: Mapping[str, Range] = {
    "Softmax": _UNIT,
    "Sigmoid": _UNIT,
    "HardSigmoid": _UNIT,
    "Tanh": (-1.0, 1.0),
    "Erf": (-1.0, 1.0),
    "Sqrt": (0.0, math.inf),
    "ReduceL2": (0.0, math.inf),
    "ReduceSumSquare": (0.0, math.inf),
}


def range_of(value: ir.Value, depth: int = DEPTH) -> Range:
    """The ends of an interval that holds every element of the value; infinite where nothing is known.

    NaN is left aside. depth: how many makers to look behind.
    """
    array, node = constant(value), value.producer()
    if array is not None and array.size and np.isfinite(array).all():
        return float(array.min()), float(array.max())
    if node is None or depth == 0 or not (is_onnx(node) or is_openwork(node)):
        return EVERYTHING
    if is_openwork(node) and node.op_type != "Dequantize" and _does_more(node):
        return EVERYTHING
    if is_square(value) is not None:
        return 0.0, math.inf
    if node.op_type in _FIXED:
        return _FIXED[node.op_type]
    if node.op_type in _SAME:
        return range_of(needed(node, 0), depth - 1)
    rule = _RULES.get(node.op_type)
    return EVERYTHING if rule is None else rule(node, depth - 1)


def _does_more(node: ir.Node) -> bool:
    """Whether it reads or makes integers that stand for other numbers, or ends with an activation."""
    return any(name == "activation" or name.endswith("_scale") for name in attributes(node))


def _relu(node: ir.Node, depth: int) -> Range:
    low, high = range_of(needed(node, 0), depth)
    return max(low, 0.0), max(high, 0.0)


def _clip(node: ir.Node, depth: int) -> Range:
    low, high = range_of(needed(node, 0), depth)
    given: dict[str, Any] = attributes(node)
    ends = [given.get("alpha", given.get("min")), given.get("beta", given.get("max"))]
    for index in (0, 1):
        if operand(node, index + 1) is not None:
            ends[index] = scalar(operand(node, index + 1))
    least = -math.inf if ends[0] is None else ends[0]
    most = math.inf if ends[1] is None else ends[1]
    return min(max(low, least), most), min(max(high, least), most)


def _dequantize(node: ir.Node, depth: int) -> Range:
    given = attributes(node)
    return representable(given["x_scale"], given["x_zero_point"])


def _average(node: ir.Node, depth: int) -> Range:
    """Padding may be counted, as 0."""
    low, high = range_of(needed(node, 0), depth)
    return min(low, 0.0), max(high, 0.0)


def _pair(node: ir.Node, depth: int) -> tuple[Range, Range]:
    """Of both values, or of the one and a stored constant."""
    other = operand(node, 1) or needed(node, 2)
    return range_of(needed(node, 0), depth), range_of(other, depth)


def _add(node: ir.Node, depth: int) -> Range:
    (a, b), (c, d) = _pair(node, depth)
    return a + c, b + d


def _multiply(node: ir.Node, depth: int) -> Range:
    first, second = _pair(node, depth)
    # 0 times infinity bounds nothing beyond 0: the factor is 0.
    products = [0.0 if 0.0 in (x, y) else x * y for x in first for y in second]
    return min(products), max(products)


_RULES: Mapping[str, Callable[[ir.Node, int], Range]] = {
    "Relu": _relu,
    "Clip": _clip,
    "Dequantize": _dequantize,
    "AveragePool": _average,
    "Add": _add,
    "Mul": _multiply,
}


def representable(scale: float, zero_point: int) -> Range:
    """The least and the largest number of a u8 map."""
    return float(np.float32(-zero_point) * np.float32(scale)), float(
        np.float32(255 - zero_point) * np.float32(scale)
    )
