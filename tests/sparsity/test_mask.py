"""Magnitude masks of every kind of pattern against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from openwork.sparsity import BlockPattern, GroupPattern, Pattern, magnitude_mask
from openwork.sparsity.masks.mask import best_mask

SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)
# Few distinct magnitudes make ties common.
LEVELS = st.sampled_from([2, 5, 1000])


def _weight(rows: int, columns: int, seed: int, levels: int) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(-levels, levels + 1, (rows, columns))
    ).float()


def _loop_groups(weight: Tensor, pattern: GroupPattern) -> Tensor:
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for row in range(0, weight.shape[0], pattern.shared):
        for column in range(0, weight.shape[1], pattern.group):
            block = weight[row : row + pattern.shared, column : column + pattern.group]
            energy = block.square().sum(dim=0).tolist()
            best = sorted(range(len(energy)), key=lambda i: (-energy[i], i))[: pattern.kept]
            for i in best:
                mask[row : row + pattern.shared, column + i] = True
    return mask


@given(st.tuples(st.integers(1, 31), st.integers(2, 32), st.integers(1, 5)), SIZES, SIZES, SEEDS, LEVELS)
def test_groups_keep_the_most_energy(
    numbers: tuple[int, int, int], rows: int, columns: int, seed: int, levels: int
) -> None:
    kept, group, shared = numbers
    pattern = GroupPattern(min(kept, group - 1), group, shared)
    weight = _weight(rows, columns, seed, levels)
    mask = magnitude_mask(weight, pattern)
    assert torch.equal(mask, _loop_groups(weight, pattern))
    assert pattern.holds(mask.numpy())


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 99), SIZES, SIZES, SEEDS)
def test_blocks_keep_the_most_energy(
    r: int, c: int, percent: int, rows: int, columns: int, seed: int
) -> None:
    pattern, weight = BlockPattern(r, c, percent / 100), _weight(rows, columns, seed, 1000)
    mask = magnitude_mask(weight, pattern)
    starts = [(i, j) for i in range(0, rows, r) for j in range(0, columns, c)]
    blocks = [
        (mask[i : i + r, j : j + c], weight[i : i + r, j : j + c].square().sum().item()) for i, j in starts
    ]
    assert all(bool(block.all()) or not bool(block.any()) for block, _ in blocks)
    dropped = [energy for block, energy in blocks if not block.any()]
    kept = [energy for block, energy in blocks if block.any()]
    assert len(dropped) == percent * len(starts) // 100
    assert max(dropped, default=0.0) <= min(kept)


@pytest.mark.parametrize("text", ["2:4", "4:8", "4:16", "2:4@2", "4x1:0.75", "1x1:0.5"])
def test_the_fraction_of_zeros_is_the_pattern_s(text: str) -> None:
    pattern = Pattern.parse(text)
    mask = magnitude_mask(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)), pattern)
    assert mask.float().mean().item() == pattern.density


def test_half_precision_weights_and_gradients_are_taken() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -3.0, 2.0, 0.5]], dtype=torch.bfloat16))
    assert magnitude_mask(weight, Pattern.parse("2:4")).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    weight = torch.ones(3, 8)
    weight[1, 5] = bad
    with pytest.raises(ValueError, match=rf"A weight holds {bad} at row 1, column 5; weights must be finite"):
        magnitude_mask(weight, Pattern.parse("2:4"))


def test_a_sum_that_overflows_is_not_taken_for_infinity() -> None:
    mask = magnitude_mask(torch.tensor([[3e38, 3e38, 1.0, 1.0]]), Pattern.parse("2:4"))
    assert mask.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("weight", [torch.ones(4), torch.ones(0, 4), torch.ones(4, 4, dtype=torch.int8)])
def test_only_floating_point_matrices_are_taken(weight: Tensor) -> None:
    with pytest.raises(ValueError, match="must be a non-empty floating point matrix"):
        magnitude_mask(weight, Pattern.parse("2:4"))


@pytest.mark.parametrize("text", ["2:4", "2:4@2", "4:16", "3:5@4", "2:4t"])
def test_a_stack_is_masked_matrix_by_matrix(text: str) -> None:
    stack = torch.randn(3, 10, 32, generator=torch.Generator().manual_seed(3))
    pattern = Pattern.parse(text)
    together = magnitude_mask(stack, pattern)
    assert torch.equal(together, torch.stack([magnitude_mask(matrix, pattern) for matrix in stack]))
    assert pattern.holds(together.numpy())


def test_blocks_of_a_stack_compete_over_all_its_matrices() -> None:
    stack = torch.cat([torch.ones(1, 4, 4), torch.full((1, 4, 4), 2.0)])
    assert magnitude_mask(stack, Pattern.parse("4x1:0.5")).float().mean(dim=(1, 2)).tolist() == [0.0, 1.0]


def test_scores_below_zero_lose_to_none_beyond_the_edge() -> None:
    mask = best_mask(torch.full((1, 6), -5.0), Pattern.parse("2:4"))
    assert mask.tolist() == [[True, True, False, False, True, True]]


def test_more_than_a_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="`WeightView` gives the stack of any layer's weight"):
        magnitude_mask(torch.ones(2, 2, 4, 4), Pattern.parse("2:4"))
