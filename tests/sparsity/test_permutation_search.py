"""The search for an order of channels: against exhaustive search, the stripe search and direct evaluation."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from benchmarks.permutation.stripe_search import StripeSearch, best_division
from benchmarks.permutation.weights import trained_like
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.masks.mask import magnitude_mask
from openwork.sparsity.permutation.problem import Effort, Problem, kept
from openwork.sparsity.permutation.search import search
from openwork.sparsity.permutation.sorting_network import descending, largest_sum

TWO_OF_FOUR = GroupPattern(2, 4)


def problem(rows: int, channels: int, seed: int, pattern: GroupPattern = TWO_OF_FOUR) -> Problem:
    return Problem(pattern, trained_like((rows, channels), seed).abs().t().contiguous())


def plainly_kept(weight: Tensor, pattern: GroupPattern, order: Tensor) -> float:
    """By sorting each group of each row."""
    groups = weight[:, order].unflatten(1, (-1, pattern.group))
    return float(groups.double().sort(dim=2, descending=True).values[:, :, : pattern.kept].sum())


@pytest.mark.parametrize("width", [*range(1, 18), 31, 32, 64])
def test_networks_sort(width: int) -> None:
    values = torch.randint(0, 9, (width, 200), generator=torch.Generator().manual_seed(width)).float()
    expected = values.sort(dim=0, descending=True).values
    assert torch.equal(torch.stack(descending(values.unbind(0))), expected)
    half = max(1, width // 2)
    assert torch.equal(largest_sum(values.unbind(0), half), expected[:half].sum(dim=0))


def test_two_groups_are_divided_as_well_as_possible() -> None:
    """Against all 35 divisions of eight channels."""
    for seed in range(8):
        weight = trained_like((5, 8), seed).abs()
        best = max(
            plainly_kept(weight, TWO_OF_FOUR, torch.tensor([*left, *(i for i in range(8) if i not in left)]))
            for left in combinations(range(8), 4)
        )
        order = search(Problem(TWO_OF_FOUR, weight.t().contiguous()), Effort(most=400))
        # Float32 search, float64 witness: sums of 20 kept values.
        assert plainly_kept(weight, TWO_OF_FOUR, order) == pytest.approx(best, rel=20 * 2**-24), (
            f"seed {seed}"
        )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from([(1, 2), (1, 4), (2, 4), (3, 4), (4, 8), (4, 16), (2, 3), (5, 10)]),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(0, 1000),
)
def test_an_order_is_a_permutation_that_keeps_at_least_as_much(
    pattern: tuple[int, int], groups: int, rows: int, seed: int
) -> None:
    chosen = GroupPattern(*pattern)
    weight = trained_like((rows, chosen.group * groups), seed).abs()
    posed = Problem(chosen, weight.t().contiguous())
    order = search(posed, Effort(least=8, most=8, patience=3))
    assert torch.equal(order.sort().values, torch.arange(posed.channels))
    after, before = (
        plainly_kept(weight, chosen, order),
        plainly_kept(weight, chosen, torch.arange(posed.channels)),
    )
    # `search` compares float32 values summed in float64: each group's sum has at most M - 1 roundings.
    assert after >= before * (1 - chosen.group * 2**-24)
    assert kept(posed, order) == pytest.approx(after, rel=chosen.group * 2**-24)


def test_one_outlier_a_group_is_spread_out() -> None:
    """Four loud channels side by side: 1:4 keeps them all once each has a group of its own."""
    weight = torch.full((10, 16), 0.01)
    weight[:, :4] = 1.0
    order = search(Problem(GroupPattern(1, 4), weight.t().contiguous()), Effort(most=60))
    assert sorted((order.view(4, 4) < 4).sum(dim=1).tolist()) == [1, 1, 1, 1]


@pytest.mark.parametrize(("rows", "channels", "seed"), [(128, 64, 0), (576, 64, 1), (96, 128, 2)])
def test_at_least_as_good_as_the_stripe_search(rows: int, channels: int, seed: int) -> None:
    posed = problem(rows, channels, seed)
    stripes = StripeSearch(posed.columns.t()).run()
    start = torch.arange(channels)
    assert kept(posed, start) < kept(posed, stripes) <= kept(posed, search(posed, Effort(most=400)))


def test_the_stripe_search_looks_at_every_division() -> None:
    columns = torch.rand(8, 6, 9, generator=torch.Generator().manual_seed(3))
    gain, choice = best_division(columns)
    for pair in range(6):
        weight = columns[:, pair].t()
        totals = [
            plainly_kept(weight, TWO_OF_FOUR, torch.tensor([*left, *(i for i in range(8) if i not in left)]))
            for left in combinations(range(8), 4)
            if 0 in left
        ]
        assert int(choice[pair]) == max(range(35), key=totals.__getitem__)
        # Sums of 36 values of at most 1 in single precision.
        assert float(gain[pair]) == pytest.approx(max(totals) - totals[0], abs=36 * 36 * 2**-24)


def test_the_same_seed_finds_the_same_order() -> None:
    posed = problem(32, 64, 4)
    one, same, other = (search(posed, Effort(seed=seed, most=40)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("pattern", [GroupPattern(2, 4, 2), GroupPattern(2, 4, 4), GroupPattern(4, 16, 2)])
def test_shared_masks_gain_on_both_sides(pattern: GroupPattern) -> None:
    """Makers gain by who shares a mask, readers by who shares a group, and together they gain too."""
    channels = 8 * pattern.group
    reader, maker = trained_like((24, channels), 5).abs(), trained_like((channels, 32), 6).abs()
    columns = reader.view(-1, pattern.shared, channels).sum(dim=1).t().contiguous()
    outputs = tuple(maker[:, place :: pattern.group].contiguous() for place in range(pattern.group))
    empty = torch.zeros(channels, 0)
    start = torch.arange(channels)
    for posed in (
        Problem(pattern, columns),
        Problem(pattern, empty, outputs),
        Problem(pattern, columns, outputs),
    ):
        order = search(posed, Effort(least=60, most=60))
        assert kept(posed, order) > 1.005 * kept(posed, start)
        assert kept(posed, order) == pytest.approx(_kept_by_masks(posed, reader, maker, order), rel=1e-5)


def _kept_by_masks(posed: Problem, reader: Tensor, maker: Tensor, order: Tensor) -> float:
    """What masks made for the reordered weights keep: masks for w^2 = |v|, so that they keep the most |v|."""
    total = 0.0
    if posed.columns.shape[1]:
        moved = reader[:, order]
        total += float(moved[magnitude_mask(moved.sqrt(), posed.pattern)].sum())
    if posed.outputs:
        moved = maker[order]
        total += float(moved[magnitude_mask(moved.sqrt(), posed.pattern)].sum())
    return total


def test_a_single_group_stays() -> None:
    assert torch.equal(search(problem(8, 4, 0)), torch.arange(4))


def test_bad_problems_are_refused() -> None:
    with pytest.raises(
        ValueError, match="6 channels do not fill groups of 4; give whole groups to the search"
    ):
        search(Problem(TWO_OF_FOUR, torch.rand(6, 3)))
    odd = GroupPattern(2, 4, 3)
    with pytest.raises(ValueError, match="2:4@3 shares masks across the borders of its groups"):
        search(Problem(odd, torch.rand(12, 3), tuple(torch.rand(12, 3) for _ in range(4))))
