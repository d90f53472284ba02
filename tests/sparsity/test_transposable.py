"""Transposable masks: legal both ways, the best sum for M <= 4, near it beyond (by linear programming)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.masks.transposable import legal_blocks, transposable_mask

SEEDS = st.integers(0, 2**31 - 1)
SIDES = st.integers(1, 21)


def _pattern(kept: int, group: int) -> GroupPattern:
    return GroupPattern(kept, group, transposable=True)


def _scores(shape: tuple[int, int, int], seed: int, levels: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if levels:
        return torch.randint(-levels, levels + 1, shape, generator=generator).float()
    return torch.randn(shape, generator=generator)


def _best_sum(block: np.ndarray, kept: int) -> float:
    """The transportation problem's optimum: its vertices are whole numbers, so the relaxation is exact."""
    side = len(block)
    constraints = np.concatenate([np.kron(np.eye(side), np.ones(side)), np.kron(np.ones(side), np.eye(side))])
    solution = linprog(-block.ravel(), A_eq=constraints, b_eq=np.full(2 * side, kept), bounds=(0, 1))
    assert solution.success
    return float(-solution.fun)


def _blocks(stack: Tensor, group: int) -> Tensor:
    return stack.unflatten(1, (-1, group)).unflatten(3, (-1, group)).transpose(2, 3).flatten(0, 2)


@pytest.mark.parametrize(("kept", "count"), [(1, 24), (2, 90), (3, 24)])
def test_lists_every_legal_block_of_four(kept: int, count: int) -> None:
    blocks = legal_blocks(kept, 4)
    assert len(blocks) == len(blocks.flatten(1).unique(dim=0)) == count
    assert (blocks.sum(1) == kept).all()
    assert (blocks.sum(2) == kept).all()


@pytest.mark.parametrize(("kept", "group"), [(1, 2), (1, 3), (2, 3), (1, 4), (2, 4), (3, 4)])
def test_is_the_optimum_where_all_blocks_are_listed(kept: int, group: int) -> None:
    scores = _scores((2, 5 * group, 6 * group), seed=group * 10 + kept)
    mask = transposable_mask(scores, _pattern(kept, group))
    for block, chosen in zip(_blocks(scores, group), _blocks(mask, group), strict=True):
        best = _best_sum(block.double().numpy(), kept)
        # The solver's own tolerance.
        assert block.double()[chosen].sum().item() == pytest.approx(best, rel=0, abs=1e-7)


@pytest.mark.parametrize(
    ("kept", "group", "mean"), [(4, 8, 0.995), (2, 8, 0.99), (4, 16, 0.99), (8, 16, 0.995)]
)
def test_is_near_the_optimum_of_wide_blocks(kept: int, group: int, mean: float) -> None:
    scores = _scores((1, 8 * group, group), seed=7).square()
    mask = transposable_mask(scores, _pattern(kept, group))
    shares = [
        block[chosen].sum().item() / _best_sum(block.double().numpy(), kept)
        for block, chosen in zip(_blocks(scores, group), _blocks(mask, group), strict=True)
    ]
    assert max(shares) <= 1 + 1e-6
    assert np.mean(shares) >= mean


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(2, 9), st.tuples(st.integers(1, 3), SIDES, SIDES), SEEDS, st.booleans())
def test_is_legal_in_both_directions(
    kept: int, group: int, shape: tuple[int, int, int], seed: int, ties: bool
) -> None:
    pattern = _pattern(min(kept, group - 1), group)
    mask = transposable_mask(_scores(shape, seed, 2 if ties else 0), pattern)
    assert mask.shape == shape
    assert pattern.holds(mask.numpy())
    assert pattern.holds(mask.transpose(1, 2).numpy())


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(2, 9), st.integers(1, 3), st.integers(1, 3), SEEDS)
def test_keeps_exactly_n_where_nothing_is_cut(kept: int, group: int, high: int, wide: int, seed: int) -> None:
    kept = min(kept, group - 1)
    mask = transposable_mask(_scores((1, high * group, wide * group), seed, 2), _pattern(kept, group))
    assert (_blocks(mask, group).sum(1) == kept).all()
    assert (_blocks(mask, group).sum(2) == kept).all()


@settings(deadline=None)
@given(SEEDS)
def test_transposes_with_its_scores(seed: int) -> None:
    # Without ties the optimum of a block is its own, seen from either side.
    scores = (
        torch.randperm(256, generator=torch.Generator().manual_seed(seed)).square().float().view(1, 16, 16)
    )
    direct = transposable_mask(scores, _pattern(2, 4))
    turned = transposable_mask(scores.transpose(1, 2), _pattern(2, 4)).transpose(1, 2)
    assert scores[direct].sum() == scores[turned].sum()


def test_wastes_no_place_on_the_padding() -> None:
    # However negative the scores are: a lone last column keeps two of its four rows, a lone row both ends.
    scores = _scores((3, 4, 5), seed=3) - 100
    mask = transposable_mask(scores, _pattern(2, 4))
    assert mask[:, :, 4].sum(1).tolist() == [2, 2, 2]
    assert mask[:, :, :4].sum((1, 2)).tolist() == [8, 8, 8]
    assert torch.equal(mask[:, :, 4], scores[:, :, 4] >= scores[:, :, 4].topk(2, dim=1).values[:, -1:])


def test_ties_keep_the_first_positions() -> None:
    mask = transposable_mask(torch.ones(1, 4, 4), _pattern(2, 4))
    assert mask[0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("scores", "pattern", "said"),
    [
        (torch.ones(4, 4), _pattern(2, 4), "a non-empty stack [stack, out, in], but their shape is [4, 4]"),
        (torch.ones(0, 4, 4), _pattern(2, 4), "a non-empty stack [stack, out, in], but their shape is [0, 4"),
        (torch.ones(1, 4, 4), GroupPattern(2, 4, 2), "2:4@2 shares masks among rows; a transposable mask"),
    ],
)
def test_refuses_in_a_sentence(scores: Tensor, pattern: GroupPattern, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        transposable_mask(scores, pattern)


def test_reduced_precision_of_products_does_not_reach_it() -> None:
    scores = 1000 + _scores((1, 64, 64), seed=4)
    expected = transposable_mask(scores, _pattern(2, 4))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(transposable_mask(scores, _pattern(2, 4)), expected)
    finally:
        torch.set_float32_matmul_precision(before)
