"""What a Q/DQ graph may give: for each element of each value the ends between which any faithful run lies.

Each operator is computed in binary64 on intervals, widened by what binary32 may lose there: u = 2^-24 for
each rounding, times the magnitudes that were rounded; for functions the errors of docs/arithmetic.md and of
the other side. A quantizer maps both ends: where they give one integer, every run must give it, to the bit;
where a tie lies between them, either of its neighbours. So a tolerance is never a guess, and it is zero for
most elements of a quantized value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from image_bounds import IMAGES
from intervals import Array, Attributes, Bounds, U, exactly

FUNCTION = 3e-6
"""Of an activation, relative to max(1, |x|): below 1.6e-6 on either side (docs/arithmetic.md)."""
FIXED = 1 / 11580 + 1 / 32767
"""Of a product in fixed point, relative to sqrt(n) and the norms: half a unit of each element, twice."""


def _along(parameter: Bounds, like: Array, a: Attributes) -> Array:
    """A scale or zero point, per tensor or along an axis, spread over a value."""
    values = parameter.low
    if values.size == 1:
        return np.asarray(values.reshape(()))
    shape = [1] * like.ndim
    shape[a.get("axis", 1)] = values.size
    return values.reshape(shape)


def _quantize(x: Bounds, scale: Bounds, point: Bounds, a: Attributes) -> Bounds:
    """Divided by the scale or multiplied by its reciprocal, which is rounded too: four roundings at most."""
    by, zero = _along(scale, x.low, a), _along(point, x.low, a)
    least, most = (-128.0, 127.0) if a["signed"] else (0.0, 255.0)
    ends = (x.low - 4 * U * x.largest) / by, (x.high + 4 * U * x.largest) / by
    low, high = (np.clip(np.rint(end) + zero, least, most) for end in ends)
    return Bounds(low, high)


def _dequantize(q: Bounds, scale: Bounds, *rest: Any) -> Bounds:
    *points, a = rest
    by, zero = _along(scale, q.low, a), _along(points[0], q.low, a) if points else 0.0
    low, high = (q.low - zero) * by, (q.high - zero) * by
    return Bounds(low - U * np.abs(low), high + U * np.abs(high))


def _matmul(x: Bounds, w: Bounds, a: Attributes) -> Bounds:
    """A sum of n products in any order errs by (n + 1) u of their magnitudes; scales are rounded 6 times."""
    n = x.low.shape[-1]
    spread = x.largest @ w.largest
    radius = x.radius @ w.largest + x.largest @ w.radius + 2 * (n + 8) * U * spread
    if a.get("fixed"):
        norms = (
            np.linalg.norm(x.largest, axis=-1)[..., None] * np.linalg.norm(w.largest, axis=-2)[..., None, :]
        )
        radius = radius + FIXED * np.sqrt(n) * norms
    return Bounds.around(x.centre @ w.centre, radius)


def _gemm(x: Bounds, w: Bounds, *rest: Any) -> Bounds:
    *bias, a = rest
    turned = w.map(np.transpose) if a.get("transB") else w
    product = _matmul(x, turned, {})
    return _add(product, bias[0], a) if bias else product


def _add(x: Bounds, y: Bounds, a: Attributes) -> Bounds:
    slack = 4 * U * (x.largest + y.largest)
    return Bounds(x.low + y.low - slack, x.high + y.high + slack)


def _mul(x: Bounds, y: Bounds, a: Attributes) -> Bounds:
    radius = x.radius * y.largest + x.largest * y.radius + 4 * U * x.largest * y.largest
    return Bounds.around(x.centre * y.centre, radius)


def _relu(x: Bounds, a: Attributes) -> Bounds:
    return x.map(lambda end: np.maximum(end, 0.0))


def _clip(x: Bounds, low: Bounds | None, *rest: Any) -> Bounds:
    *high, _ = rest
    least = -np.inf if low is None else low.low
    most = high[0].low if high else np.inf
    return x.map(lambda end: np.clip(end, least, most))


def _smooth(function: Callable[[Array], Array], steepest: float) -> Callable[[Bounds, Attributes], Bounds]:
    """A function that is nowhere steeper than `steepest`."""

    def bounds(x: Bounds, a: Attributes) -> Bounds:
        radius = steepest * x.radius + FUNCTION * np.maximum(1.0, x.largest)
        return Bounds.around(function(x.centre), radius)

    return bounds


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * x) + 0.5)


def _gelu(x: Array) -> Array:
    from math import erf

    return np.asarray(0.5 * x * (1 + np.vectorize(erf, otypes=[float])(x / np.sqrt(2))))


def _leaky(x: Bounds, a: Attributes) -> Bounds:
    steep = x.map(lambda end: np.where(end > 0, end, a["alpha"] * end))
    return Bounds(steep.low - 2 * U * x.largest, steep.high + 2 * U * x.largest)


def _hard_sigmoid(x: Bounds, a: Attributes) -> Bounds:
    alpha, beta = a.get("alpha", 0.2), a.get("beta", 0.5)
    slack = 4 * U * (alpha * x.largest + beta)
    ends = alpha * x.low + beta - slack, alpha * x.high + beta + slack
    return Bounds(*(np.clip(end, 0, 1) for end in ends))


def _layer_norm(x: Bounds, gamma: Bounds, beta: Bounds, a: Attributes) -> Bounds:
    """By the largest change of the mean, of the variance (by two passes or by mean squares), of the root."""
    n = x.low.shape[-1]
    mean, squares = x.centre.mean(-1, keepdims=True), (x.largest**2).mean(-1, keepdims=True)
    off = x.radius + x.radius.mean(-1, keepdims=True) + 2 * (n + 2) * U * x.largest.mean(-1, keepdims=True)
    d = x.centre - mean
    variance = (d**2).mean(-1, keepdims=True) + a["epsilon"]
    lost = (2 * np.abs(d) * off + off**2).mean(-1, keepdims=True) + 4 * (n + 4) * U * squares
    least = np.maximum(variance - lost, a["epsilon"])
    root, steep = 1 / np.sqrt(variance), np.maximum(1 / np.sqrt(least) - 1 / np.sqrt(variance + lost), 0)
    radius = off / np.sqrt(least) + np.abs(d) * (steep + 8 * U * root)
    y = d * root * gamma.low + beta.low
    return Bounds.around(y, radius * np.abs(gamma.low) + 8 * U * (np.abs(y) + 2 * np.abs(beta.low)))


def _softmax(x: Bounds, a: Attributes) -> Bounds:
    top = x.high.max(-1, keepdims=True)
    low, high = np.exp(x.low - top), np.exp(x.high - top)
    least = low / (low + high.sum(-1, keepdims=True) - high)
    most = high / (high + low.sum(-1, keepdims=True) - low)
    # The exponent is a difference of two rounded numbers; exp errs by 2e-7, in fixed point by 3e-6 and by
    # half of 1 / 32767.
    slack = 4 * U * (x.largest.max(-1, keepdims=True) + x.low.shape[-1] + 8)
    slack = slack + (8e-6 if a.get("fixed") else 1e-6)
    rough = (x.low.shape[-1] / 32767) * most if a.get("fixed") else 0.0
    rough = rough + (most.max(-1, keepdims=True) / 32767 if a.get("fixed") else 0.0)
    return Bounds(least * (1 - slack) - rough, most * (1 + slack) + rough)


def _reshape(x: Bounds, shape: Bounds, a: Attributes) -> Bounds:
    wanted = [x.low.shape[i] if d == 0 else int(d) for i, d in enumerate(shape.low.tolist())]
    return x.map(lambda end: end.reshape(wanted))


def _transpose(x: Bounds, a: Attributes) -> Bounds:
    return x.map(lambda end: end.transpose(a["perm"]))


def _concat(*operands: Any) -> Bounds:
    *parts, a = operands
    low, high = ([getattr(part, end) for part in parts] for end in ("low", "high"))
    return Bounds(np.concatenate(low, a["axis"]), np.concatenate(high, a["axis"]))


def _gather(x: Bounds, indices: Bounds, a: Attributes) -> Bounds:
    picked, axis = indices.low.astype(np.int64), a.get("axis", 0)
    return Bounds(np.take(x.low, picked, axis), np.take(x.high, picked, axis))


MEANING: Mapping[str, Callable[..., Bounds]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    "Sub": lambda x, y, a: _add(x, Bounds(-y.high, -y.low), a),
    "Mul": _mul,
    "Div": lambda x, y, a: _mul(x, exactly(1 / y.low), a),
    "Relu": _relu,
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "HardSigmoid": _hard_sigmoid,
    "Sigmoid": _smooth(_sigmoid, 0.25),
    "Elu": _smooth(lambda x: np.where(x > 0, x, np.expm1(x)), 1.0),
    "Softplus": _smooth(lambda x: np.logaddexp(0, x), 1.0),
    "Tanh": _smooth(np.tanh, 1.0),
    "HardSwish": _smooth(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 1.5),
    "Gelu": _smooth(_gelu, 1.13),
    "LayerNormalization": _layer_norm,
    "Softmax": _softmax,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "Gather": _gather,
    **IMAGES,
}


def bounds_of(
    model: onnx.ModelProto, feeds: Mapping[str, Array], fixed: Sequence[str] = ()
) -> dict[str, Bounds]:
    """The bounds of every value of a graph of the operators in MEANING.

    fixed: names of the nodes that attention may compute in 16-bit fixed point.
    """
    values = {name: exactly(array) for name, array in feeds.items()}
    signed = set()
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        values[tensor.name] = exactly(array)
        signed |= {tensor.name} if array.dtype == np.int8 else set()
    chosen = frozenset(fixed)
    for node in model.graph.node:
        a = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        a |= {
            "signed": len(node.input) > 2 and node.input[2] in signed,
            "fixed": node.name in chosen,
            "made": len(node.output),
        }
        given = (values[name] if name else None for name in node.input)
        made = MEANING[node.op_type](*given, a)
        values |= zip(node.output, made if isinstance(made, tuple) else (made,), strict=False)
    return values


@dataclass(frozen=True)
class Verdict:
    """How an output lies in its bounds: elements outside, and elements that may be more than one number."""

    outside: int
    uncertain: int
    elements: int


def judge(bounds: Bounds, found: Array) -> Verdict:
    """Compare an output with its bounds; numbers that are not finite lie outside."""
    if found.shape != bounds.low.shape:
        return Verdict(max(found.size, 1), 0, found.size)
    wide = found.astype(np.float64)
    inside = (bounds.low <= wide) & (wide <= bounds.high)
    return Verdict(int((~inside).sum()), int((bounds.low < bounds.high).sum()), found.size)
