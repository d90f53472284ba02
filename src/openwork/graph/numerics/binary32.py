"""Exact IEEE-754 binary32 arithmetic in NumPy: the primitives of docs/arithmetic.md, with its bits.

Arrays are float32 throughout; every function broadcasts over leading dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.coefficients import EXP, GELU, GELU_CLAMP, GELU_STEPS, LN2_HIGH, LN2_LOW, LOG2E
from openwork.support import bf16

Float = NDArray[np.float32]
Operand = Float | np.float32

LANES = 16
_ONE = np.float32(1)


def quiet() -> np.errstate:
    """The arithmetic's own view of overflow and NaN: values like any other, not warnings."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")


def factors(x: Float, weight: NDArray[Any]) -> tuple[Float, Float]:
    """What a product of floats multiplies: both as they are, or of a weight of BF16 (uint16) its numbers and
    those of x rounded to BF16."""
    if weight.dtype != np.uint16:
        return x, weight
    return bf16.widened(bf16.rounded(x)), bf16.widened(weight)


def fma(a: Operand, b: Operand, c: Operand) -> Float:
    """a * b + c with one rounding to binary32.

    The product of two 24-bit significands has 48 bits and lies within binary64's exponents, so it is exact
    there. TwoSum (Knuth, TAOCP 4.2.2) gives the binary64 sum and its exact error; moving an inexact sum to
    the neighbour with an odd last bit makes it the sum *rounded to odd*, and rounding that to binary32 equals
    rounding the exact value once, because 53 >= 24 + 2 (Boldo and Melquiond, "Emulation of FMA and correctly
    rounded sums", IEEE Trans. Computers 2008).
    """
    with quiet():
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        addend = np.asarray(c, np.float64)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)
        bits = total.view(np.int64)
        to_odd = (error != 0) & np.isfinite(total) & ((bits & 1) == 0)
        away = np.where((error > 0) == (total > 0), 1, -1)
        return (bits + np.where(to_odd, away, 0)).view(np.float64).astype(np.float32)


def minimum(a: Operand, b: Operand) -> Float:
    """a < b ? a : b, as x86 defines it: b where either is NaN."""
    return np.where(np.less(a, b), a, b).astype(np.float32)


def maximum(a: Operand, b: Operand) -> Float:
    """a > b ? a : b, as x86 defines it: b where either is NaN."""
    return np.where(np.greater(a, b), a, b).astype(np.float32)


def _lanes(x: Float) -> Float:
    """[..., n] as [..., ceil(n / 16), 16], padded with +0, which changes no sum that started at +0."""
    n = x.shape[-1]
    padded = np.zeros((*x.shape[:-1], -(-n // LANES) * LANES), np.float32)
    padded[..., :n] = x
    return padded.reshape(*x.shape[:-1], padded.shape[-1] // LANES, LANES)


def _fold(accumulators: Float) -> Float:
    width = LANES
    while width > 1:
        width //= 2
        accumulators = accumulators[..., :width] + accumulators[..., width : 2 * width]
    return accumulators[..., 0]


def sum16(x: Float) -> Float:
    """Sum over the last axis in sixteen accumulators, folded 8, 4, 2, 1."""
    chunks = _lanes(x)
    total = np.zeros((*x.shape[:-1], LANES), np.float32)
    with quiet():
        for i in range(chunks.shape[-2]):
            total = total + chunks[..., i, :]
        return _fold(total)


def dot16(x: Float, y: Float) -> Float:
    """Dot product over the last axis, as sum16 with acc = fma(x, y, acc)."""
    left, right = _lanes(x), _lanes(y)
    total = np.zeros((*np.broadcast_shapes(x.shape, y.shape)[:-1], LANES), np.float32)
    for i in range(left.shape[-2]):
        total = fma(left[..., i, :], right[..., i, :], total)
    with quiet():
        return _fold(total)


def horner(coefficients: Float, x: Float) -> Float:
    """The polynomial with these coefficients, lowest degree first, by Horner's rule in fma.

    coefficients: f32 [degree + 1] or, where each element of x has its own, [degree + 1, ...] of x's shape.
    """
    value: Float = np.broadcast_to(coefficients[-1], np.shape(x))
    for coefficient in coefficients[-2::-1]:
        value = fma(value, x, coefficient)
    return value


def exp(v: Float) -> Float:
    """e to the v; relative error below 2e-7, and v is clamped to [-87, 88]."""
    t = minimum(maximum(v, np.float32(-87)), np.float32(88))
    n = np.rint(np.multiply(t, LOG2E, dtype=np.float32))
    r = fma(n, -LN2_HIGH, t)
    r = fma(n, -LN2_LOW, r)
    p = horner(EXP, r)
    bits: NDArray[np.int32] = p.view(np.int32) + (n.astype(np.int32) << 23)
    return bits.view(np.float32)


def gelu(v: Float, table: Float = GELU) -> Float:
    """v * Phi(v), Phi the normal distribution function, as max(0, v) - |v| Phi(-|v|); NaN where v is NaN.

    table : of |v| Phi(-|v|), or of its tanh approximation.
    """
    a = minimum(np.abs(v), GELU_CLAMP)
    piece = np.rint(a.astype(np.float64) * GELU_STEPS).astype(np.intp)
    p = horner(table[:, piece], a)
    with quiet():
        return np.subtract(maximum(np.float32(0), v), p, dtype=np.float32)


def relu(v: Float) -> Float:
    """v > 0 ? v : 0."""
    return maximum(v, np.float32(0))


def quantize(x: Float, scale: float, zero_point: int, multiplier: Float | None = None) -> NDArray[np.uint8]:
    """rint(x / scale) + zero_point in [0, 255], by the reciprocal of the scale rounded once; NaN gives 0.

    multiplier: f32 of the last axis' size, which x is multiplied by first; it is taken into the reciprocal.
    """
    inverse: Operand = _ONE / np.float32(scale)
    inverse = inverse if multiplier is None else np.multiply(multiplier, inverse, dtype=np.float32)
    with quiet():
        return _stored(np.rint(np.asarray(x, np.float32) * inverse), zero_point)


def quantize_exactly(x: Float, scale: float, zero_point: int) -> NDArray[np.uint8]:
    """The same by dividing, as ONNX does: for tables, which are made once."""
    with quiet():
        return _stored(np.rint(np.asarray(x, np.float32) / np.float32(scale)), zero_point)


def _stored(v: Float, zero_point: int) -> NDArray[np.uint8]:
    v = maximum(v, np.float32(-zero_point))
    v = minimum(v, np.float32(255 - zero_point))
    return (v.astype(np.int32) + zero_point).astype(np.uint8)
