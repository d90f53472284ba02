"""Whether stored weights keep to their pattern: the quick answer is the pattern's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.patterns.bitmap import compress
from openwork.patterns.keeping import violation
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.patterns.stored import is_grouped, store

GROUPS = [*range(2, 10), 12, 16, 20, 24, 64, 100, 300]


@given(st.data())
def test_the_answer_is_that_of_the_pattern(data: st.DataObject) -> None:
    group = data.draw(st.sampled_from(GROUPS))
    kept = data.draw(st.integers(1, group - 1))
    shared, transposable = data.draw(st.sampled_from([(1, False), (2, False), (3, False), (1, True)]))
    pattern = GroupPattern(kept, group, shared, transposable)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 90)))
    weight = np.where(rng.random(shape) < rng.random() * 1.5 * kept / group, 1, 0).astype(np.int8)
    right = pattern.violations(weight)
    rows_hold = GroupPattern(kept, group).holds(weight)
    stored = store(weight, pattern) if rows_hold or not is_grouped(pattern) else compress(weight)
    found = violation(stored, weight, pattern)
    assert found is None if not right else found in right


@pytest.mark.parametrize("kept", [7, 8, 9])
def test_a_border_is_where_the_pattern_has_it(kept: int) -> None:
    weight = np.zeros((3, 40), np.int8)
    weight[1, 16 : 16 + kept] = 5
    found = violation(compress(weight), weight, Pattern.parse("8:16"))
    assert str(found) == ("None" if kept <= 8 else "row 1, group 1: 9 non-zero weights where 8:16 allows 8")


@pytest.mark.parametrize("text", ["1:999999999", "1:999999999@999999999", "1:999999999t", "1:999999936"])
def test_a_group_far_longer_than_the_weight_takes_no_memory(text: str) -> None:
    weight = np.ones((3, 5), np.int8)
    found = violation(compress(weight), weight, Pattern.parse(text))
    assert found is not None
    assert (found.row, found.group, found.kept) == (0, 0, 5)
    weight[:, 1:] = 0
    weight[1:] = 0
    assert violation(compress(weight), weight, Pattern.parse(text)) is None
