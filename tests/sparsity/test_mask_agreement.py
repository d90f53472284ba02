"""Magnitude masks against ASP's rule, by enumeration, and against torch's own 2:4 pruning."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.pruning import WeightNormSparsifier
from torch.sparse._semi_structured_conversions import (
    _sparse_semi_structured_tile,
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)

from openwork.patterns.pattern import Pattern
from openwork.sparsity.masks.mask import best_mask, magnitude_mask
from openwork.sparsity.masks.view import WeightView
from openwork.sparsity.pruner.criterion import Criterion

PATTERN = Pattern.parse("2:4")
SIX = [np.array([i in chosen for i in range(4)]) for chosen in combinations(range(4), 2)]

LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(32, 8),
    "conv1d": nn.Conv1d(16, 8, 3),
    "conv2d": nn.Conv2d(16, 8, (3, 2)),
    "conv3d": nn.Conv3d(16, 8, 2),
    "grouped": nn.Conv2d(32, 8, 3, groups=2),
}


def _asp(weight: np.ndarray) -> np.ndarray:
    """ASP's m4n2_1d: of the six patterns of every 4 channels, the one with the largest sum of magnitudes.

    Rows run along the input channels: a convolution [K, C, R, S] is read as [K, R, S, C], whose last axis is
    that of ASP's (R*S*K, C).
    """
    rows = np.moveaxis(weight, 1, -1)
    mask = np.zeros(rows.shape, dtype=bool)
    for place in np.ndindex(rows.shape[:-1]):
        for left in range(0, rows.shape[-1], 4):
            group = np.abs(rows[place][left : left + 4])
            sums = [group[six].sum() for six in SIX]
            mask[place][left : left + 4] = SIX[int(np.argmax(sums))]
    return np.moveaxis(mask, -1, 1)


def _weight(module: nn.Module, kind: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = module.weight.shape
    if kind == "random":
        return torch.randn(shape, generator=generator)
    if kind == "tied":
        # Few distinct magnitudes, of both signs and zero: nearly every group has a tie.
        return torch.randint(-2, 3, shape, generator=generator) * 0.5
    return torch.full(shape, 0.25)


def _mask(module: nn.Module, weight: Tensor) -> Tensor:
    """By the criterion, as the pruner makes it."""
    view = WeightView.of(module)
    assert view is not None
    return view.restore(best_mask(view.matrices(Criterion.parse("magnitude").scores(weight, {})), PATTERN))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LAYERS)
def test_random_weights_get_asp_s_masks(name: str, seed: int) -> None:
    weight = _weight(LAYERS[name], "random", seed)
    assert np.array_equal(_mask(LAYERS[name], weight).numpy(), _asp(weight.numpy())), f"seed {seed}"


@pytest.mark.parametrize("kind", ["tied", "constant"])
@pytest.mark.parametrize("name", LAYERS)
def test_tied_weights_keep_what_asp_keeps_in_every_group(name: str, kind: str) -> None:
    """Which of equal weights stays is each library's own affair: here the first. Equal are, in every group,
    the number that is kept, and their magnitudes.
    """
    weight = _weight(LAYERS[name], kind, seed=5)
    ours, theirs = _mask(LAYERS[name], weight).numpy(), _asp(weight.numpy())
    groups = [
        np.moveaxis(np.where(m, np.abs(weight.numpy()), -1.0), 1, -1).reshape(-1, 4) for m in (ours, theirs)
    ]
    assert np.array_equal(np.sort(groups[0], axis=1), np.sort(groups[1], axis=1))
    first = np.moveaxis(ours, 1, -1).reshape(-1, 4)
    magnitudes = np.moveaxis(np.abs(weight.numpy()), 1, -1).reshape(-1, 4)
    for kept, group in zip(first, magnitudes, strict=True):
        # Sorting is stable: of equals, the first.
        assert sorted(np.argsort(-group, kind="stable")[:2]) == list(np.flatnonzero(kept))


def _torch_mask(weight: Tensor, norm: int) -> Tensor:
    """2 zeros in every 1 x 4 block by torch's own sparsifier."""
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    model[0].weight = nn.Parameter(weight.clone())
    sparsifier = WeightNormSparsifier(1.0, sparse_block_shape=(1, 4), zeros_per_block=2, norm=norm)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    return model[0].parametrizations.weight[0].mask.bool()


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_random_weights_get_torch_s_masks(seed: int, norm: int) -> None:
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(magnitude_mask(weight, PATTERN), _torch_mask(weight, norm)), f"seed {seed}"


def test_tied_weights_keep_the_magnitudes_that_torch_keeps() -> None:
    weight = _weight(nn.Linear(64, 24), "tied", seed=9)
    kept = [
        torch.where(mask, weight.abs(), -1.0).reshape(-1, 4).sort(dim=1).values
        for mask in (magnitude_mask(weight, PATTERN), _torch_mask(weight, 2))
    ]
    assert torch.equal(*kept)


@pytest.mark.parametrize("kind", ["random", "tied", "constant"])
@pytest.mark.parametrize("text", ["2:4", "2:4@2", "1:4", "2:4t"])
def test_torch_s_semi_structured_format_holds_what_is_kept(text: str, kind: str) -> None:
    """Its compressor keeps two values of four, so that only 2:4 weights come back whole."""
    weight = _weight(nn.Linear(64, 32), kind, seed=2).half()
    pruned = weight * magnitude_mask(weight, Pattern.parse(text))
    values, indices = sparse_semi_structured_from_dense_cutlass(pruned)
    assert values.shape == (32, 32)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(values, indices), pruned)
    if kind == "random":
        values, indices = sparse_semi_structured_from_dense_cutlass(weight)
        assert not torch.equal(sparse_semi_structured_to_dense_cutlass(values, indices), weight)


def test_both_directions_keep_at_least_what_torch_s_greedy_tiles_keep() -> None:
    magnitudes = torch.randn(64, 64, generator=torch.Generator().manual_seed(3)).abs()
    ours = best_mask(magnitudes, Pattern.parse("2:4t"))
    theirs = _sparse_semi_structured_tile(magnitudes.clone()) != 0
    gain = _tiles(magnitudes * ours) - _tiles(magnitudes * theirs)
    # Greedy tiles that end with 7 weights are no rival for those of 8 one by one, only all together.
    full = _tiles(theirs.float()) == 8
    # Sums of 8 numbers below 4 in float32, in two orders.
    assert gain[full].min() > -1e-5
    assert gain[full].max() > 0.1
    assert gain.sum() > 0.0


def _tiles(matrix: Tensor) -> Tensor:
    """The sum of each 4 x 4 tile."""
    return matrix.unfold(0, 4, 4).unfold(1, 4, 4).sum(dim=(2, 3)).flatten()
