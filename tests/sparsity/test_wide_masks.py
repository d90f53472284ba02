"""Masks shared by 16 to 128 outputs, groups of up to 256 inputs, wide blocks: every way to prune takes them.

The layers have outputs that V does not divide, inputs that M does not divide, kernel taps and groups.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from elimination import eliminated
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity import (
    Calibration,
    Pruner,
    PrunerOptions,
    allocate,
    layer_table,
    measure_sensitivity,
    output_error,
    reconstruct,
    wanda_mask,
)
from openwork.sparsity.calibrated.wanda import wanda_scores
from openwork.sparsity.interop.asp import AutomaticSparsity
from openwork.sparsity.masks.ends import EVERY
from openwork.sparsity.masks.mask import best_mask, magnitude_mask
from openwork.sparsity.masks.view import WeightView

TEXTS = ["64:128@64", "64:256@128", "4:8@64", "2:4@64", "32:64@16", "64:128@128", "8:32@32", "4x16:0.85"]

LAYERS = {
    "linear": (nn.Linear(300, 200), (5, 300)),
    "taps": (nn.Conv2d(272, 136, (1, 2)), (2, 272, 2, 4)),
    "groups": (nn.Conv2d(2 * 264, 2 * 130, 1, groups=2), (2, 528, 2, 3)),
    "transposed": (nn.ConvTranspose1d(260, 130, 2), (2, 260, 3)),
}
"""Layers and the shapes of their inputs."""


def layer(kind: str) -> tuple[nn.Module, Tensor]:
    template, shape = LAYERS[kind]
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(copy.deepcopy(template))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(shape, generator=generator)


def kept(scores: np.ndarray, pattern: GroupPattern) -> np.ndarray:
    """The mask by loops: of each V rows and M columns the N columns with the largest sums, in float64."""
    mask = np.zeros(scores.shape, dtype=bool)
    stack, rows, columns = scores.shape
    for matrix in range(stack):
        for top in range(0, rows, pattern.shared):
            for left in range(0, columns, pattern.group):
                block = scores[matrix, top : top + pattern.shared, left : left + pattern.group]
                chosen = np.argsort(-block.astype(np.float64).sum(axis=0), kind="stable")[: pattern.kept]
                mask[matrix, top : top + pattern.shared, left + chosen] = True
    return mask


def wide(text: str) -> GroupPattern:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, GroupPattern)
    return pattern


GROUPS = [text for text in TEXTS if ":" in text and "x" not in text]


@pytest.mark.parametrize("text", GROUPS)
@pytest.mark.parametrize("shape", [(1, 200, 300), (2, 128, 256), (3, 130, 257)])
def test_the_mask_of_a_set_keeps_its_largest_sums(text: str, shape: tuple[int, int, int]) -> None:
    pattern = wide(text)
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    got = best_mask(scores, pattern)
    # Float32 sums of 128 scores rarely tie with float64's order; the loss of a swap is what may differ.
    expected = kept(scores.numpy(), pattern)
    energy = (scores.double().numpy() * expected).sum()
    assert (scores.double() * got).sum() >= energy * (1 - 128 * torch.finfo(torch.float32).eps)
    assert (got.numpy() == expected).mean() > 0.999
    assert pattern.holds(got.numpy())


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("criterion", ["magnitude", "gradient", "snip", "snip-momentum", "movement"])
def test_every_criterion_gives_one_mask_to_a_set(criterion: str, kind: str, text: str) -> None:
    model, inputs = layer(kind)
    pruner = Pruner(model, text, EVERY, criterion=criterion)
    model(inputs).square().sum().backward()
    pruner.observe()
    scores = pruner.criterion.scores(model[0].weight, pruner.scores["0"]).float()
    view = WeightView.of(model[0])
    assert view is not None
    pruner.prune()
    pruner.verify()
    assert torch.equal(
        view.matrices(pruner.masks["0"]), best_mask(view.matrices(scores), Pattern.parse(text))
    )


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_calibrated_methods_give_one_mask_to_a_set(method: str, kind: str, text: str) -> None:
    model, inputs = layer(kind)
    before = model(inputs).detach()
    pruner = Pruner(model, text, EVERY)
    errors = pruner.prune(method, Calibration([inputs], bfloat16=False))  # type: ignore[arg-type]
    pruner.verify()
    lost = float((model(inputs).detach() - before).square().sum())
    assert 0 < errors["0"] < 1
    if method == "sparsegpt":
        other, _ = layer(kind)
        Pruner(other, text, EVERY).prune("magnitude")
        assert lost < float((other(inputs).detach() - before).square().sum())


@pytest.mark.parametrize("text", GROUPS)
def test_wanda_sums_its_scores_over_the_set(text: str) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 130, 260, generator=generator)
    norms = torch.rand(2, 2 * 260, generator=generator) + 0.1
    got = wanda_mask(weight, norms, wide(text))
    assert (got.numpy() == kept(wanda_scores(weight, norms).numpy(), wide(text))).mean() > 0.999
    assert wide(text).holds(got.numpy())


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("schedule", ["progressive:2:3", "gradual:cubic:1:5", "sr-ste:5:0.01"])
@pytest.mark.parametrize("kind", ["linear", "groups"])
def test_every_schedule_ends_with_the_pattern(kind: str, schedule: str, text: str) -> None:
    model, inputs = layer(kind)
    pruner = Pruner(model, text, EVERY, schedule=schedule)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    pruner.attach(optimizer)
    zeros = []
    for _ in range(8):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
        pruner.verify()
        zeros.append(pruner.zeros)
    assert pruner.finished
    assert zeros == sorted(zeros)
    assert Pattern.parse(text).holds(WeightView.of(model[0]).matrices(model[0].weight.detach()).numpy())  # type: ignore[union-attr]


@pytest.mark.parametrize("scope", ["local", "global"])
def test_one_pruner_holds_several_wide_patterns(scope: str) -> None:
    model = nn.Sequential(nn.Linear(300, 264), nn.ReLU(), nn.Linear(264, 200), nn.ReLU(), nn.Linear(200, 8))
    patterns = {"0": "64:256@128", "2": "4x16:0.85", "4": None}
    options = PrunerOptions(scope=scope)  # type: ignore[arg-type]
    pruner = Pruner(model, patterns, EVERY, schedule="gradual:cubic:0:4", options=options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner.attach(optimizer)
    for step in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 300, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        pruner.verify()
    assert pruner.finished


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "reason"),
    [
        (
            "64:128@64",
            96,
            128,
            "The layer has 96 input channels, fewer than the 128 that 64:128@64 groups.",
        ),
        (
            "64:256@128",
            256,
            64,
            "The layer has 64 output channels, fewer than the 128 that 64:256@128 treats alike.",
        ),
        ("4x16:0.85", 8, 64, "The layer has 8 input channels, fewer than the 16 that 4x16:0.85 groups."),
    ],
)
def test_a_layer_that_is_too_narrow_says_so(text: str, inputs: int, outputs: int, reason: str) -> None:
    (row,) = layer_table(nn.Sequential(nn.Linear(inputs, outputs)), text, EVERY)
    assert row.reason == reason


def test_groups_of_a_convolution_that_are_too_narrow_say_so() -> None:
    (row,) = layer_table(nn.Sequential(nn.Conv2d(256, 256, 3, groups=4)), "64:128@64", EVERY)
    assert row.reason == (
        "The layer has 64 input channels in each group, fewer than the 128 that 64:128@64 groups."
    )


def problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight and the gram of correlated inputs, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(8 * columns, columns, generator=generator) @ mixing + 0.1
    return torch.randn(rows, columns, generator=generator), inputs.T @ inputs / len(inputs)


@pytest.mark.parametrize(
    ("text", "rows", "columns"),
    [
        ("64:128@64", 70, 128),
        ("8:16@32", 40, 56),
        ("4:8@64", 65, 44),
        ("2:4@128", 130, 30),
        ("40:160@16", 20, 180),
        ("180:256@128", 130, 264),
    ],
)
def test_second_order_masks_weigh_all_rows_of_a_set(text: str, rows: int, columns: int) -> None:
    """Against float64 loops that invert the Hessian anew for each removal; some groups span two panels."""
    weight, gram = problem(rows, columns, seed=columns)
    pattern = wide(text)
    got = reconstruct(weight, gram, pattern, 0.01)
    hessian = gram.double().numpy() + 0.01 * gram.double().diagonal().mean().item() * np.eye(columns)
    spans = [(left, min(left + pattern.group, columns)) for left in range(0, columns, pattern.group)]
    expected = eliminated(weight.numpy(), hessian, spans, pattern.kept, pattern.shared)
    assert torch.equal(got.mask, torch.from_numpy(expected != 0))
    # float32 against float64: the damped Hessian's condition stays below 1e4 here, and 1e4 * 6e-8 = 6e-4.
    assert np.abs(got.weight.numpy() - expected).max() < 6e-4 * np.abs(expected).max()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("shape", [(256, 512), (200, 300)])
def test_second_order_masks_lose_less_than_magnitude_s(text: str, shape: tuple[int, int]) -> None:
    pattern = Pattern.parse(text)
    weight, gram = problem(*shape, seed=4)
    got = reconstruct(weight, gram, pattern)
    assert pattern.holds(got.mask.numpy())
    assert pattern.holds(got.weight.numpy())
    by_magnitude = output_error(weight, weight * magnitude_mask(weight, pattern), gram)
    assert got.error < (1.0 if isinstance(pattern, BlockPattern) else 0.9) * by_magnitude


@pytest.mark.parametrize("text", ["2:4@64", "2:4@16"])
def test_two_of_four_that_sets_share_is_asp_s(text: str) -> None:
    """What ASP and sparse tensor cores ask of a weight is 2:4 in each row, whoever shares the mask."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    asp = AutomaticSparsity()
    asp.init_model_for_pruning(model, text, allow_permutation=False)
    asp.compute_sparse_masks()
    asp.verify()
    for module in (model[0], model[2]):
        assert Pattern.parse("2:4").holds(module.weight.detach().numpy())
        assert Pattern.parse(text).holds(module.weight_mask.numpy())


def test_an_allocation_chooses_among_wide_patterns() -> None:
    model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64))
    inputs = torch.randn(8, 256, generator=torch.Generator().manual_seed(5))
    target = model(inputs).detach()
    texts = ["64:128@64", "4x16:0.85"]
    found = measure_sensitivity(
        model, lambda m: float((m(inputs) - target).square().mean()), texts, include=EVERY
    )
    times = {name: {"dense": 1.0, "64:128@64": 0.6, "4x16:0.85": 0.3} for name in ("0", "2")}
    allocation = allocate(found, times, target=1.2)
    pruner = Pruner(model, allocation.mapping)
    pruner.prune()
    pruner.verify()
    assert set(allocation.mapping.values()) <= {*texts, None}


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_packed_projections_share_masks_within_each(method: str) -> None:
    """96 outputs of query, key and value: the last set of each has 32, and none spans two projections."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(96, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return found

    model = Attending()
    pruner = Pruner(model, "32:64@64")
    pruner.prune(method, Calibration([torch.randn(4, 9, 96)], bfloat16=False))  # type: ignore[arg-type]
    pruner.verify()
    mask = model.attention.in_proj_weight_mask.view(3, 96, 96)
    for top, bottom in ((0, 64), (64, 96)):
        assert bool((mask[:, top:bottom] == mask[:, top : top + 1]).all())
    assert not torch.equal(mask[0, 95], mask[1, 0])
