"""Whole numbers: which values count as one, and what the refusal of the others says."""

from __future__ import annotations

import numpy as np
import pytest

from openwork.support.numbers import whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers_become_ints(value: object) -> None:
    number = whole_number(value, "The number")
    assert (number, type(number)) == (3, int)


@pytest.mark.parametrize("value", [1.5, 2.0, "2", True, np.True_, np.float32(1), None, [1], 1j])
def test_other_kinds_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"^The number is a whole number, but it is .*, of the type \w+\.$"):
        whole_number(value, "The number")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^The number is at least 1, but it is 0\.$"):
        whole_number(0, "The number")
    with pytest.raises(ValueError, match=r"^The number is at most 2147483647, but it is 1099511627776\.$"):
        whole_number(1 << 40, "The number")
    with pytest.raises(ValueError, match=r"^The number is at most 7, but it is 8\.$"):
        whole_number(8, "The number", high=7)
