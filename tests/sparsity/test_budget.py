"""A global budget: the lowest scores of all layers go, under a ceiling, and the model has its zeros."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.sparsity import Pattern, Pruner, PrunerOptions
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.pruner.budget import global_masks, global_zeros

SEEDS = st.integers(0, 2**31 - 1)


def _scores(seed: int, *shapes: tuple[int, int, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer{i}": torch.rand(shape, generator=generator) for i, shape in enumerate(shapes)}


def _alike(scores: dict[str, Tensor], text: str) -> dict[str, Pattern]:
    return dict.fromkeys(scores, Pattern.parse(text))


@settings(deadline=None)
@given(SEEDS, st.integers(1, 97), st.integers(0, 10))
def test_unstructured_drops_the_smallest_of_the_whole_model(seed: int, percent: int, part: int) -> None:
    scores = _scores(seed, (1, 7, 11), (9, 3, 5), (1, 20, 4))
    scores["layer1"] *= 0.3
    masks = global_masks(scores, _alike(scores, f"1x1:{percent / 100}"), part / 10, ceiling=1.0)
    everything = torch.cat([stack.flatten() for stack in scores.values()])
    count = percent * part * len(everything) // 1000
    limit = everything.sort().values[:count].amax() if count else -1.0
    for name, stack in scores.items():
        assert torch.equal(masks[name], stack > limit)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 9), st.integers(1, 10))
def test_blocks_of_several_sizes_reach_the_target_of_the_model(seed: int, tenths: int, part: int) -> None:
    scores = _scores(seed, (1, 16, 16), (2, 8, 16), (1, 32, 8))
    texts = ["4x1:0.{}", "2x2:0.{}", "4x4:0.{}"]
    patterns = {n: Pattern.parse(t.format(tenths)) for n, t in zip(scores, texts, strict=True)}
    masks = global_masks(scores, patterns, part / 10, ceiling=1.0)
    dropped = sum(int((~mask).sum()) for mask in masks.values())
    wanted = 768 * tenths * part / 100
    # Rounded down to whole blocks, the largest of 16 weights.
    assert wanted - 16 < dropped <= wanted + 1e-6


def test_layers_with_smaller_scores_give_more_up_to_their_ceiling() -> None:
    scores = _scores(1, (1, 40, 40), (1, 40, 40), (1, 40, 40))
    scores["layer0"] *= 1e-3
    scores["layer2"] += 1
    zeros = global_zeros(scores, _alike(scores, "4x1:0.5"), ceiling=0.9)
    assert zeros["layer0"] == 0.9
    assert zeros["layer0"] > zeros["layer1"] > zeros["layer2"] == 0.0
    assert sum(zeros.values()) == pytest.approx(1.5, rel=0, abs=1 / 400)
    assert max(global_zeros(scores, _alike(scores, "4x1:0.5")).values()) == 0.98


def test_groups_end_at_their_pattern_and_differ_on_the_way() -> None:
    scores = _scores(2, (1, 16, 16), (9, 8, 12))
    scores["layer0"] *= 0.5
    patterns = {"layer0": Pattern.parse("2:4"), "layer1": Pattern.parse("1:4@2")}
    half = global_zeros(scores, patterns, 0.5)
    assert half["layer0"] / 0.5 > 0.5 > half["layer1"] / 0.75
    total = half["layer0"] * 256 + half["layer1"] * 864
    assert total == pytest.approx(0.5 * (0.5 * 256 + 0.75 * 864), rel=0, abs=2)
    final = global_masks(scores, patterns)
    for name, pattern in patterns.items():
        assert torch.equal(final[name], best_mask(scores[name], pattern))


def test_blocks_do_not_pay_for_groups() -> None:
    scores = _scores(3, (1, 8, 8), (1, 8, 8))
    scores["layer1"] *= 1e-6
    zeros = global_zeros(scores, {"layer0": Pattern.parse("2:4"), "layer1": Pattern.parse("1x1:0.25")}, 1.0)
    assert zeros == {"layer0": 0.5, "layer1": 0.25}


@settings(deadline=None)
@given(SEEDS, st.lists(st.integers(0, 20), min_size=2, max_size=2))
def test_masks_grow_from_one_another(seed: int, parts: list[int]) -> None:
    scores = _scores(seed, (1, 8, 12), (4, 6, 9), (1, 8, 8))
    patterns = dict(zip(scores, map(Pattern.parse, ("2:4", "2x1:0.7", "1x1:0.5")), strict=True))
    earlier, later = (global_masks(scores, patterns, part / 20, 0.9) for part in sorted(parts))
    assert not any(bool((later[name] & ~earlier[name]).any()) for name in scores)


def test_nothing_at_the_start() -> None:
    scores = _scores(4, (1, 8, 8), (1, 8, 8))
    assert global_zeros(scores, _alike(scores, "2:4"), 0.0) == {"layer0": 0.0, "layer1": 0.0}
    assert global_zeros({}, {}) == {}


@pytest.mark.parametrize(
    ("fraction", "ceiling", "said"),
    [
        (1.5, 0.98, "The fraction of the patterns' zeros lies between 0 and 1, but it is 1.5."),
        (1.0, 0.0, "The ceiling of a layer's zeros lies in (0, 1], but it is 0.0."),
        (
            1.0,
            0.5,
            "With a ceiling of 0.5 for each layer at most 0.5 of the weights can be zero, but the patterns "
            "ask for 0.8; raise the ceiling or ask for fewer zeros.",
        ),
    ],
)
def test_refuses_in_a_sentence(fraction: float, ceiling: float, said: str) -> None:
    scores = _scores(5, (1, 40, 40), (1, 40, 40))
    with pytest.raises(ValueError, match=re.escape(said)):
        global_zeros(scores, _alike(scores, "4x1:0.8"), fraction, ceiling)


@pytest.mark.parametrize(("text", "zeros"), [("2:4", 0.5), ("4x1:0.75", 0.75)])
def test_a_pruner_shares_out_at_every_step_of_its_schedule(text: str, zeros: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 16))
    with torch.no_grad():
        model[0].weight *= 10
    pruner = Pruner(model, text, schedule="progressive:3:2", options=PrunerOptions(scope="global"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    pruner.attach(optimizer)
    shares, before = [], {name: mask.clone() for name, mask in pruner.masks.items()}
    for _ in range(6):
        shares.append([1 - float(mask.float().mean()) for mask in pruner.masks.values()])
        model(torch.randn(4, 8, 4, 4)).square().mean().backward()
        optimizer.step()
        assert not any(bool((mask & ~before[name]).any()) for name, mask in pruner.masks.items())
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
    # The convolution's weights are larger, so it gives later; blocks of 4 of 2,176 weights are rounded down.
    assert shares[0][0] < zeros / 3 < shares[0][1]
    assert pruner.zeros == pytest.approx(zeros, rel=0, abs=8 / 2176)
    assert pruner.faults() == []
