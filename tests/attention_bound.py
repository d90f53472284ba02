"""How far attention in fixed point may lie from exact attention, from docs/arithmetic.md alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 2.0**-23


def relative(score: float, size: int, length: int) -> float:
    """The largest error of an element over the largest value, where |q| |k| scale is at most `score`."""
    # An element errs by half a unit of norm / 32760, a row by sqrt(size) / 2 of them, a score by two rows.
    error = score * (math.sqrt(size) / 32760 + (size + 8) * EPSILON)
    # A weight is a quotient of two exponentials, each 3e-6 off; each p loses half a unit against z >= 32767.
    weight = math.expm1(2 * error) + 6e-6 + length / 32767
    value = 0.5 * math.sqrt(min(length, 32)) / 11580
    return weight + value + 2 * length * EPSILON


def bound(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], heads: int, scale: float) -> float:
    """The largest error of an element, for q, k, v [B, L, H], the other side being in binary32."""
    length, size = int(q.shape[1]), int(q.shape[2]) // heads
    norm_q, norm_k = (
        float(np.linalg.norm(x.reshape(-1, length, heads, size), axis=-1).max()) for x in (q, k)
    )
    return relative(scale * norm_q * norm_k, size, length) * float(np.abs(v).max())
