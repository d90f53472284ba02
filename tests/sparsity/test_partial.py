"""Masks on the way to a pattern: a plain loop, nesting, the ends; ranking and selecting against sorting."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openwork.sparsity import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.masks.partial import mask_at
from openwork.sparsity.masks.selection import at_rank, least, ranks

SEEDS = st.integers(0, 2**31 - 1)
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 21))
TEXTS = ["2:4", "1:4", "4:8", "3:5", "2:4@2", "4:16@4", "2:4t", "3:6t", "4x1:0.8", "2x3:0.5", "1x1:0.9"]


def _scores(shape: tuple[int, int, int], seed: int, ties: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return torch.randint(-2, 3, shape, generator=generator).float()
    return torch.randn(shape, generator=generator)


def _loop(scores: Tensor, pattern: GroupPattern, zeros: Fraction) -> Tensor:
    """The rule in words: each group drops its floor(zeros * M) worst, the weakest groups one more."""
    stack, rows, columns = scores.shape
    groups = []
    for i in range(stack):
        for row in range(0, rows, pattern.shared):
            for column in range(0, columns, pattern.group):
                part = scores[i, row : row + pattern.shared, column : column + pattern.group]
                sums = [*part.sum(0).tolist(), *[-float("inf")] * (pattern.group - part.shape[1])]
                order = sorted(range(pattern.group), key=lambda p, s=sums: (-s[p], p))
                groups.append((i, row, column, order, sums))
    base = floor(zeros * pattern.group)
    extra = floor((zeros * pattern.group - base) * len(groups))
    following = [group[4][group[3][pattern.group - 1 - base]] for group in groups]
    weakest = set(sorted(range(len(groups)), key=lambda g: (following[g], g))[:extra])
    mask = torch.ones_like(scores, dtype=torch.bool)
    for g, (i, row, column, order, _) in enumerate(groups):
        for p in order[pattern.group - base - (g in weakest) :]:
            if column + p < columns:
                mask[i, row : row + pattern.shared, column + p] = False
    return mask


@settings(deadline=None)
@given(
    st.integers(1, 9), st.integers(2, 10), st.integers(1, 3), SHAPES, st.integers(0, 24), SEEDS, st.booleans()
)
def test_groups_follow_the_rule(
    kept: int, group: int, shared: int, shape: tuple[int, int, int], part: int, seed: int, ties: bool
) -> None:
    pattern = GroupPattern(min(kept, group - 1), group, shared)
    zeros = Fraction(group - pattern.kept, group) * part / 24
    # Whole numbers, so that the sums of shared rows do not depend on their order.
    scores = (_scores(shape, seed, ties) * 64).round()
    expected = _loop(scores, pattern, zeros)
    assert torch.equal(mask_at(scores, pattern, float(zeros)), expected)


def test_a_quarter_of_two_of_four_is_three_of_four() -> None:
    scores = _scores((9, 12, 20), seed=5)
    assert torch.equal(mask_at(scores, Pattern.parse("2:4"), 0.25), best_mask(scores, GroupPattern(3, 4)))


@pytest.mark.parametrize("text", TEXTS)
@settings(deadline=None, max_examples=30)
@given(SHAPES, SEEDS, st.booleans(), st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_masks_are_nested_and_end_at_the_pattern(
    text: str, shape: tuple[int, int, int], seed: int, ties: bool, parts: list[float]
) -> None:
    pattern, scores = Pattern.parse(text), _scores(shape, seed, ties)
    masks = [mask_at(scores, pattern, part * pattern.zeros) for part in [0.0, *sorted(parts), 1.0]]
    assert masks[0].all()
    assert torch.equal(masks[-1], best_mask(scores, pattern))
    for earlier, later in pairwise(masks):
        assert not (later & ~earlier).any()


@pytest.mark.parametrize("text", [text for text in TEXTS if "x" not in text])
@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(0, 40))
def test_drops_the_fraction_that_was_asked_for(text: str, seed: int, part: int) -> None:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, GroupPattern)
    shape = (2, 4 * pattern.group, 3 * pattern.group)
    zeros = pattern.zeros * part / 40
    dropped = int((~mask_at(_scores(shape, seed), pattern, zeros)).sum())
    size = shape[0] * shape[1] * shape[2]
    # Rounded down to whole groups, of which each stands for `shared` weights.
    assert zeros * size - pattern.shared - 1e-6 < dropped <= zeros * size + 1e-6 * size


@pytest.mark.parametrize("text", ["4x1:0.8", "1x1:0.5"])
def test_blocks_drop_any_number_that_a_budget_gives(text: str) -> None:
    pattern, scores = Pattern.parse(text), _scores((1, 12, 7), seed=1)
    assert isinstance(pattern, BlockPattern)
    blocks = 84 // (pattern.rows * pattern.columns)
    for count in range(blocks + 1):
        mask = mask_at(scores, pattern, count / blocks)
        assert int((~mask).sum()) == count * pattern.rows


def test_transposable_never_breaks_its_columns_on_the_way() -> None:
    pattern, scores = GroupPattern(2, 4, transposable=True), _scores((2, 16, 16), seed=2)
    for part in range(11):
        mask = mask_at(scores, pattern, 0.05 * part)
        columns = mask.view(2, 4, 4, 16).sum(2)
        assert columns.min() >= 2
        rows = mask.view(2, 16, 4, 4).sum(3)
        assert rows.max() - rows.min() <= 1


@pytest.mark.parametrize(
    ("text", "zeros", "said"),
    [
        ("2:4", 0.6, "A mask on the way to 2:4 has a fraction of zeros between 0 and 0.5, but 0.6 was asked"),
        ("4x1:0.8", 1.1, "between 0 and 1, but 1.1 was asked for."),
        ("2:4", -0.1, "between 0 and 0.5, but -0.1 was asked for."),
        ("2:4", float("nan"), "between 0 and 0.5, but nan was asked for."),
    ],
)
def test_refuses_in_a_sentence(text: str, zeros: float, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        mask_at(torch.ones(1, 4, 4), Pattern.parse(text), zeros)


@pytest.mark.parametrize("width", [1, 2, 4, 7, 64, 65])
@pytest.mark.parametrize("ties", [True, False])
def test_ranks_are_the_stable_order(width: int, ties: bool) -> None:
    groups = _scores((1, 300, width), width, ties)[0]
    expected = groups.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    found = ranks(groups)
    assert torch.equal(found.long(), expected)
    ordered = groups.sort(dim=1, descending=True).values
    for rank in range(width):
        assert torch.equal(at_rank(groups, found, rank), ordered[:, rank])


def test_ranks_of_more_groups_than_are_ranked_at_a_time() -> None:
    groups = _scores((1, (1 << 16) + 3, 4), 1, ties=True)[0]
    expected = groups.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    assert torch.equal(ranks(groups).long(), expected)


@settings(deadline=None)
@given(
    st.integers(1, 60),
    st.integers(-1, 61),
    SEEDS,
    st.booleans(),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_least_is_the_head_of_a_stable_sort(
    size: int, count: int, seed: int, ties: bool, dtype: torch.dtype
) -> None:
    values = _scores((1, 1, size), seed, ties).flatten().to(dtype)
    expected = torch.zeros(size, dtype=torch.bool)
    expected[values.argsort(stable=True)[: max(count, 0)]] = True
    assert torch.equal(least(values, count), expected)
