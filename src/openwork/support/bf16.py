"""BF16, the upper half of a binary32, which NumPy has no type for: its 16 bits stand in uint16."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNIT_ROUNDOFF = 2.0**-8
"""What rounding to nearest moves a normal number by at most, of itself: it has 8 significant bits."""


def rounded(floats: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The BF16 nearest to each binary32, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(floats).view(np.uint32)
    # Half of the last kept bit, and one less where that bit is 0: a tie then falls to the even side.
    nearest = ((bits >> 16) + ((bits & 0xFFFF) + ((bits >> 16) & 1) > 0x8000)).astype(np.uint16)
    return np.where(np.isnan(floats), (bits >> 16 | 0x40).astype(np.uint16), nearest)


def widened(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The same numbers in binary32, exactly."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def weights(floats: NDArray[np.float32]) -> NDArray[np.uint16] | None:
    """Weights rounded to BF16, zeros without a sign so that all their bits are 0.

    None where one is too large.
    """
    halves = rounded(np.where(floats == 0, np.float32(0), floats))
    halves[halves == 0x8000] = 0
    return halves if np.isfinite(widened(halves)).all() else None
