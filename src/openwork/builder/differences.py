"""How the arrays that an engine makes differ from those that ONNX Runtime makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.support.bf16 import UNIT_ROUNDOFF

Array = NDArray[Any]

TOLERANCE = 0.05
"""The length of the difference, of that of the expected numbers, that roundings which fall the other way
explain in a deep network; a wrong operator makes more."""


def tolerance_of(bf16: int) -> float:
    """The same with a number of products in BF16 among the steps (docs/arithmetic.md, "Linear, FP32 and
    BF16"): each moves its result by a further part, and parts that do not depend on each other add up in
    squares."""
    return float(TOLERANCE + 2 * UNIT_ROUNDOFF * np.sqrt(bf16))


_FLAT = 1e-5
"""A difference that no operator of single precision promises to stay below, where all numbers are about 0."""


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays are the same, number for number."""
    return np.array_equal(a, b, equal_nan=is_measure(b))


def is_measure(array: Array) -> bool:
    """Whether an array holds numbers that roundings move a little."""
    return array.dtype.kind == "f"


def comparable(made: Array, expected: Array) -> bool:
    """Whether two arrays have one type and one shape."""
    return made.dtype == expected.dtype and made.shape == expected.shape


def difference(made: Array, expected: Array, tolerance: float) -> str | None:
    """How an array differs from the expected one by more than roundings explain; None where it does not.

    Floats and 8-bit integers may be off by `tolerance` of their spread, all else must be equal. What is not
    finite in the expected array may be anything.
    """
    if not comparable(made, expected):
        return f"is {made.dtype} {list(made.shape)}, but {expected.dtype} {list(expected.shape)} was expected"
    if not is_measure(expected) and (expected.dtype.kind == "b" or expected.dtype.itemsize > 1):
        return None if np.array_equal(made, expected) else "has other elements than expected"
    finite = (
        np.isfinite(expected.astype(np.float64))
        if expected.dtype.kind != "b"
        else np.ones(expected.shape, bool)
    )
    a, b = made[finite].astype(np.float64), expected[finite].astype(np.float64)
    if not a.size:
        return None
    if not np.isfinite(a).all():
        return "is not finite where it should be"
    allowed = tolerance * np.linalg.norm(b) + (_FLAT if is_measure(expected) else 1) * np.sqrt(b.size)
    off = float(np.linalg.norm(a - b))
    if off <= allowed:
        return None
    return f"is off by {off / max(float(np.linalg.norm(b)), 1e-30):.1%} of its length"
