"""Attention of one head in 16-bit fixed point, with the bits that docs/arithmetic.md defines.

All arguments are f32: q [L, D], k and v [kept keys, D].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.binary32 import Float, fma, horner, maximum, quiet
from openwork.graph.numerics.coefficients import FIXED_EXP2, LOG2E

ROW = np.float32(32760)
COLUMN = np.float32(11580)
BLOCK = 32
LEAST = np.float32(2.0**-60)
MOST = np.float32(2.0**80)
LOW = np.float32(-200)
"""An exponent of 2 whose power no 16 bits hold, for infinite differences."""


class Fixed(NamedTuple):
    """Whole numbers of 16 bits, kept as f64 for exact products, and the unit they count."""

    number: NDArray[np.float64]
    unit: Float


def squares(x: Float) -> Float:
    """The sum of the squares over the last axis: four accumulators by fma, folded 2, 1."""
    total = np.zeros((*x.shape[:-1], 4), np.float32)
    for i in range(x.shape[-1]):
        total[..., i % 4] = fma(x[..., i], x[..., i], total[..., i % 4])
    with quiet():
        total = total[..., :2] + total[..., 2:]
        return np.asarray(total[..., 0] + total[..., 1], np.float32)


def column_squares(x: Float) -> Float:
    """The largest sum of the squares of BLOCK rows that follow each other, for each column."""
    blocks = [squares(x[i : i + BLOCK].T) for i in range(0, len(x), BLOCK)]
    return np.asarray(np.max(blocks, axis=0), np.float32)


def fixed(x: Float, square: Float, full: np.float32) -> Fixed:
    """x as multiples of unit = norm / full, with norm the root of `square`."""
    norm = maximum(np.sqrt(square), LEAST)
    inverse = np.divide(full, norm, dtype=np.float32)
    number = np.rint(np.multiply(x, inverse, dtype=np.float32)).astype(np.float64)
    return Fixed(number, np.multiply(norm, np.float32(1) / full, dtype=np.float32))


def allowed(q: Float, k: Float, v: Float, scale: float) -> bool:
    """Whether the numbers of a head lie within what fixed point holds."""
    if len(k) > 65536 or q.shape[1] > 4096 or not 2.0**-32 <= np.float32(scale) <= 2.0**32:
        return False
    return all(bool((square <= MOST).all()) for square in (squares(q), squares(k), column_squares(v)))


def exp2(t: Float) -> NDArray[np.int64]:
    """rint(32767 * 2^t) for t <= 0."""
    n = np.rint(t)
    e = np.ldexp(horner(FIXED_EXP2, t - n), np.maximum(n, -100).astype(np.int32))
    return np.rint(e).astype(np.int64)


def attention(
    q: Float, k: Float, v: Float, scale: float, seen: tuple[NDArray[np.bool_], Float | None]
) -> Float:
    """softmax(q k^T * scale + bias) v; the sums of products are exact, the rest rounds in one stated order.

    seen: which keys each query sees [L, kept keys], and the bias of the same shape, or None.
    """
    visible, bias = seen
    queries = fixed(q, squares(q)[:, None], ROW)
    keys = fixed(k, squares(k)[:, None], ROW)
    values = fixed(v, column_squares(v), COLUMN)
    with quiet():
        s = (queries.number @ keys.number.T).astype(np.float32) * keys.unit[:, 0]
        factor = queries.unit * np.float32(scale)
        s, factor = (s, factor * LOG2E) if bias is None else (fma(s, factor, bias), LOG2E)
        s = np.where(visible, s, np.float32(-np.inf))
        top = s.max(1, keepdims=True)
        p = exp2(maximum((s - top) * factor, LOW))
        total = np.zeros(q.shape, np.float32)
        for i in range(0, len(k), BLOCK):
            block = p[:, i : i + BLOCK].astype(np.float64) @ values.number[i : i + BLOCK]
            total = total + block.astype(np.float32)
        inverse = np.float32(1) / np.maximum(p.sum(1, keepdims=True), 1).astype(np.float32)
        if bias is not None:
            inverse = inverse + np.where(visible.any(1, keepdims=True), top - top, np.float32(0))
        return np.asarray(total * values.unit * inverse, np.float32)
