"""Patterns of weights that are read as stacks of matrices [stack, out, in], as convolutions are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.patterns.detection import detect
from openwork.patterns.pattern import Pattern


def detect_stack(zeros: NDArray[Any], stack: NDArray[Any] | None = None) -> Pattern | None:
    """The pattern that the zeros of a stack show and that `stack` holds, by default the same numbers.

    It is read as one tall matrix; masks shared by channels of two matrices of the stack are no pattern.
    """
    shown = detect(zeros.reshape(-1, zeros.shape[2]))
    return shown if shown is not None and shown.holds(zeros if stack is None else stack) else None


def first_violation(pattern: Pattern, stack: NDArray[np.generic]) -> str | None:
    """Where a stack breaks the pattern first, as part of a sentence; None where it holds."""
    broken = pattern.violations(stack[0] if len(stack) == 1 else stack, limit=1)
    return str(broken[0]) if broken else None
