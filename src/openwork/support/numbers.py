"""Whole numbers that a caller gives: Python's and NumPy's, and nothing that only looks like one."""

from __future__ import annotations

import operator

LARGEST = 2**31 - 1
"""What the native library counts with."""


def whole_number(value: object, what: str, low: int = 1, high: int = LARGEST) -> int:
    """The value as an int in [low, high].

    what : names it at the start of a sentence: "The number of threads".
    Raises TypeError for another type, bool too, and ValueError for a number outside of the range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{what} is a whole number, but it is {value!r}, of the type {type(value).__name__}."
        ) from None
    if number < low:
        raise ValueError(f"{what} is at least {low}, but it is {number}.")
    if number > high:
        raise ValueError(f"{what} is at most {high}, but it is {number}.")
    return number
