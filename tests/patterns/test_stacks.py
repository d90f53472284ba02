"""Patterns of stacks of matrices."""

from __future__ import annotations

import numpy as np

from openwork.patterns.pattern import Pattern
from openwork.patterns.stacks import detect_stack, first_violation


def stack(kept: int) -> np.ndarray:
    """Two matrices [6, 8] with `kept` of every 4 weights."""
    weights = np.zeros((2, 6, 2, 4), np.int8)
    weights[..., :kept] = 1
    return weights.reshape(2, 6, 8)


def test_the_pattern_of_a_stack_is_found() -> None:
    shown = detect_stack(stack(2))
    assert shown is not None
    assert shown.holds(stack(2))


def test_a_pattern_that_other_numbers_break_is_none() -> None:
    assert detect_stack(stack(2), stack(2)) is not None
    assert detect_stack(stack(2), stack(4)) is None


def test_the_first_violation_names_its_matrix_only_where_there_are_several() -> None:
    pattern, broken = Pattern.parse("2:4"), stack(2)
    assert first_violation(pattern, broken) is None
    broken[1, 3, :4] = 1
    several, one = first_violation(pattern, broken), first_violation(pattern, broken[1:])
    assert several is not None
    assert one is not None
    assert "matrix 1" in several
    assert "matrix" not in one
    assert "row 3" in one
