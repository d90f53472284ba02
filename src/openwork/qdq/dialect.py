"""The same activation in the integers of another dialect; NumPy only.

An s8 activation with zero point z is the u8 one with zero point z + 128: every integer moves by 128 and
stands for the same number, at the ends of the range too. So a symmetric model fits both targets, and an
asymmetric one TensorRT only where its zero point happens to be 128.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openwork.qdq.affine import RANGES, Activation
from openwork.qdq.targets import Target

SHIFT = 128
NUMPY_TYPES: dict[str, type[np.integer]] = {"s8": np.int8, "u8": np.uint8}

ZeroPoints = NDArray[np.integer]


def recoded(zero_points: ZeroPoints, dtype: Activation, wanted: Activation) -> ZeroPoints | None:
    """The zero points of the same map in another type; None where that type cannot hold them."""
    if dtype == wanted:
        return zero_points
    moved = zero_points.astype(np.int32) + (SHIFT if wanted == "u8" else -SHIFT)
    low, high = RANGES[wanted]
    fits = bool(((moved >= low) & (moved <= high)).all())
    return moved.astype(NUMPY_TYPES[wanted]) if fits else None


def refusal(zero_points: ZeroPoints, dtype: Activation, target: Target) -> str | None:
    """Why the target takes no activation of this type with these zero points, or None."""
    moved = recoded(zero_points, dtype, target.activation)
    if moved is None or (target.symmetric and moved.any()):
        return f"is {dtype} with the zero point {', '.join(map(str, np.unique(zero_points)[:4]))}"
    return None
