"""How far attention in fixed point may lie from exact attention, from docs/arithmetic.md alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = float(np.finfo(np.float32).eps)


def bound(q: NDArray[Any], k: NDArray[Any], v: NDArray[Any], heads: int, scale: float) -> float:
    """The largest error of an element, for q, k, v [B, L, H], the other side being in binary32."""
    length, size = q.shape[1], q.shape[2] // heads
    norms = [np.linalg.norm(x.reshape(*x.shape[:2], heads, size), axis=-1).max() for x in (q, k)]
    # An element errs by half a unit of norm / 32760, a row by sqrt(size) / 2 of them, a score by two rows.
    score = scale * float(norms[0] * norms[1]) * (np.sqrt(size) / 32760 + (size + 8) * EPSILON)
    # A weight is a quotient of two exponentials, each 3e-6 off; each p loses half a unit against z >= 32767.
    weight = np.expm1(2 * score) + 6e-6 + length / 32767
    value = 0.5 * np.sqrt(min(length, 32)) / 11580
    return float(np.abs(v).max()) * (weight + value + 2 * length * EPSILON)
