"""Wanda against plain loops over outputs, and its road through whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.calibrated.oneshot import Calibration
from openwork.sparsity.calibrated.wanda import wanda_mask, wanda_model, wanda_scores
from prunables import prunables


def _nothing(completed: float, note: str = "") -> None:
    return None


def _paper(weight: np.ndarray, inputs: np.ndarray, kept: int, group: int) -> np.ndarray:
    """N:M by the paper: in each group of each output, the largest |w| * ||x||_2 stay, the first of equals."""
    norms = np.sqrt((inputs.astype(np.float64) ** 2).sum(axis=0))
    mask = np.zeros(weight.shape, dtype=bool)
    for row in range(weight.shape[0]):
        for left in range(0, weight.shape[1], group):
            columns = range(left, min(left + group, weight.shape[1]))
            best = sorted(columns, key=lambda c: -abs(float(weight[row, c])) * norms[c])
            mask[row, best[:kept]] = True
    return mask


def _problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(columns, generator=generator) * 4 + 0.1
    return torch.randn(rows, columns, generator=generator), torch.randn(
        50, columns, generator=generator
    ) * scales


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([(2, 4), (1, 4), (4, 8), (4, 16)]), st.integers(4, 40))
def test_groups_are_the_paper_s(seed: int, kept: tuple[int, int], columns: int) -> None:
    weight, inputs = _problem(5, columns, seed)
    expected = _paper(weight.numpy(), inputs.numpy(), *kept)
    got = wanda_mask(weight, inputs.square().mean(dim=0), GroupPattern(*kept))
    assert got.numpy().tolist() == expected.tolist(), f"seed {seed}"


def test_unstructured_weights_are_compared_within_their_output() -> None:
    """0.75 of 20 columns is whole: each output drops exactly its 15 smallest |w| * ||x||."""
    weight, inputs = _problem(6, 20, seed=1)
    weight *= torch.logspace(-3, 3, 6)[:, None]
    got = wanda_mask(weight, inputs.square().sum(dim=0), Pattern.parse("1x1:0.75"))
    scores = (weight.abs() * inputs.norm(dim=0)).numpy()
    for row in range(6):
        assert sorted(np.flatnonzero(~got[row].numpy())) == sorted(np.argsort(scores[row])[:15])


def _by_row(scores: np.ndarray, drop: int) -> np.ndarray:
    """Rounds over all rows, each dropping one block a row; the last, short one drops the smallest of them."""
    kept = np.ones(scores.shape, dtype=bool)
    while drop > 0:
        heads = [(min(scores[r][kept[r]]), r) for r in range(len(scores))]
        for value, row in sorted(heads)[:drop]:
            kept[row, np.flatnonzero(kept[row] & (scores[row] == value))[0]] = False
        drop -= len(heads)
    return kept


@pytest.mark.parametrize("text", ["1x1:0.7", "2x1:0.6", "4x1:0.8", "1x4:0.35", "2x3:0.5", "4x16:0.4"])
@pytest.mark.parametrize("groups", [1, 2])
def test_blocks_are_dropped_row_by_row(text: str, groups: int) -> None:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, BlockPattern)
    generator = torch.Generator().manual_seed(7)
    taps, rows, columns = 3, 7, 18
    weight = torch.randn(taps * groups, rows, columns, generator=generator)
    norms = torch.rand(groups, taps * columns, generator=generator)
    got = wanda_mask(weight, norms, pattern)
    high, wide = -(-rows // pattern.rows), -(-columns // pattern.columns)
    scores = np.zeros((groups, high, taps, wide))
    for matrix, row, column in np.ndindex(*weight.shape):
        tap, group = divmod(matrix, groups)
        score = (
            abs(weight[matrix, row, column].item()) * norms[group, tap * columns + column].item() ** 0.5
        ) ** 2
        scores[group, row // pattern.rows, tap, column // pattern.columns] += score
    expected = _by_row(scores.reshape(groups * high, -1), pattern.zero_blocks(scores.size))
    expected = expected.reshape(groups, high, taps, wide)
    for matrix, row, column in np.ndindex(*weight.shape):
        tap, group = divmod(matrix, groups)
        block = expected[group, row // pattern.rows, tap, column // pattern.columns]
        assert bool(got[matrix, row, column]) == block
    assert pattern.holds(got.numpy())


@pytest.mark.parametrize("text", ["2:4", "2:4@2", "4:16", "2:4t", "4x1:0.8", "1x1:0.9"])
def test_equal_norms_give_magnitude_s_groups(text: str) -> None:
    pattern = Pattern.parse(text)
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(2))
    got = wanda_mask(weight, torch.full((32,), 4.0), pattern)
    assert pattern.holds(got.numpy())
    if isinstance(pattern, GroupPattern):
        from openwork.sparsity.masks.mask import magnitude_mask

        assert torch.equal(got, magnitude_mask(weight, pattern))


def test_a_convolution_s_norms_are_those_of_its_unfolded_input() -> None:
    """Every tap sees its own norm, for the border; each group sees its own channels."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(16, 6, 3, padding=1, stride=2, groups=2), nn.Flatten(), nn.Linear(54, 4))
    dense = model[0].weight.detach().clone()
    batches = [torch.randn(2, 16, 5, 5) * torch.linspace(0.1, 3.0, 16)[:, None, None] for _ in range(2)]
    found = wanda_model(model, {"0": prunables(model)["0"]}, Calibration(batches, bfloat16=False), _nothing)[
        "0"
    ]
    for group in range(2):
        x = torch.cat(batches)[:, group * 8 : group * 8 + 8]
        columns = functional.unfold(x, 3, padding=1, stride=2).permute(0, 2, 1).reshape(-1, 8, 9)
        for tap in range(9):
            weight = dense[group * 3 : group * 3 + 3, :, tap // 3, tap % 3]
            expected = _paper(weight.numpy(), columns[:, :, tap].numpy(), 2, 4)
            got = found.mask[group * 3 : group * 3 + 3, :, tap // 3, tap % 3]
            assert got.numpy().tolist() == expected.tolist()
    assert torch.equal(found.weight, dense * found.mask)
    assert torch.equal(model[0].weight, found.weight)


def test_later_layers_see_what_the_pruned_ones_give() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))
    dense = {name: layer.weight.detach().clone() for name, layer in prunables(model).items()}
    batches, told = [torch.randn(20, 16) for _ in range(3)], []

    def advance(completed: float, note: str = "") -> None:
        told.append((completed, note))

    found = wanda_model(model, prunables(model), Calibration(batches, bfloat16=False), advance)
    x = torch.cat(batches)
    for i, name in enumerate(("0", "2", "4")):
        expected = torch.from_numpy(_paper(dense[name].numpy(), x.numpy(), 2, 4))
        assert torch.equal(found[name].mask, expected)
        layer = model[2 * i]
        x = functional.relu(functional.linear(x, dense[name] * expected, layer.bias)).detach()
    assert told == [(1, "0"), (2, "2"), (3, "4")]
    assert all(0.0 < result.error < 1.0 for result in found.values())


def test_the_error_is_the_lost_energy_of_uncorrelated_channels() -> None:
    weight, norms = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([4.0, 1.0, 1.0, 0.25])
    assert wanda_scores(weight, norms).tolist() == [[4.0, 4.0, 9.0, 4.0]]
    # On a tie the first stays.
    assert wanda_mask(weight, norms, Pattern.parse("2:4")).tolist() == [[True, False, True, False]]


def test_bad_input_is_refused() -> None:
    weight, norms = torch.ones(4, 8), torch.ones(8)
    with pytest.raises(ValueError, match=r"needs 8 norms, .* but they have the shape \[4\]"):
        wanda_scores(weight, norms[:4])
    with pytest.raises(ValueError, match="norms of the inputs hold NaN or infinity"):
        wanda_scores(weight, norms * float("nan"))
    with pytest.raises(ValueError, match="calibration inputs of this layer are all zero"):
        wanda_scores(weight, norms * 0.0)
    with pytest.raises(ValueError, match="A weight holds inf"):
        wanda_scores(weight / 0.0, norms)
