"""Clustering output channels that share a mask: against all ways, integer programming, and masks by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.permutation.weights import trained_like
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity import Calibration, PermutationOptions, Pruner, permute
from openwork.sparsity.interop.asp import AutomaticSparsity
from openwork.sparsity.masks.ends import EVERY
from openwork.sparsity.masks.mask import magnitude_mask
from openwork.sparsity.permutation.clustering import clustered, exchanged
from openwork.sparsity.permutation.importance import output_importance
from openwork.sparsity.permutation.problem import Effort, Problem, as_given, kept
from openwork.sparsity.permutation.search import search

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
QUICK = Effort(least=24, most=24, clusterings=6)


def wide(text: str) -> GroupPattern:
    pattern = Pattern.parse(text)
    assert isinstance(pattern, GroupPattern)
    return pattern


def making(scores: Tensor, pattern: GroupPattern, reader: Tensor | None = None) -> Problem:
    """The problem of the outputs of a layer with `scores` [out, in], and of the layer that reads them."""
    outputs = tuple(scores[:, place :: pattern.group].contiguous() for place in range(pattern.group))
    columns = torch.zeros(len(scores), 0)
    if reader is not None:
        columns = reader.view(-1, pattern.shared, len(scores)).sum(dim=1).t().contiguous()
    return Problem(pattern, columns, outputs)


def by_masks(scores: Tensor, pattern: GroupPattern, order: Tensor) -> float:
    """What a mask made for the reordered rows keeps: masks for w^2 = the score."""
    moved = scores[order]
    return float(moved[magnitude_mask(moved.sqrt(), pattern)].double().sum())


def hidden_sets(sets: int, pattern: GroupPattern, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows that need one of `sets` masks each, V of each, shuffled; and which one each needs."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(sets, columns // pattern.group, pattern.group, generator=generator)
    masks = (masks.argsort(dim=2).argsort(dim=2) < pattern.kept).flatten(1).float()
    owner = torch.arange(sets).repeat_interleave(pattern.shared)
    owner = owner[torch.randperm(len(owner), generator=generator)]
    noise = torch.rand(len(owner), columns, generator=generator)
    return masks[owner] * (0.5 + noise) + 0.05 * noise, owner


@pytest.mark.parametrize("text", ["64:128@64", "4:8@64", "2:4@16", "16:64@32", "64:256@128"])
def test_sets_that_are_there_are_found(text: str) -> None:
    pattern = wide(text)
    scores, owner = hidden_sets(6, pattern, 512, seed=1)
    order = clustered(making(scores, pattern), Effort())
    assert torch.equal(order.sort().values, torch.arange(len(scores)))
    assert bool((owner[order].view(-1, pattern.shared) == owner[order].view(-1, pattern.shared)[:, :1]).all())


def test_the_best_of_all_divisions_of_two_sets() -> None:
    """Against every way to make two sets of four out of eight channels."""
    pattern = GroupPattern(2, 4, 4)
    for seed in range(6):
        scores = trained_like((8, 16), seed).square()
        best = max(
            by_masks(scores, pattern, torch.tensor([*left, *(i for i in range(8) if i not in left)]))
            for left in combinations(range(8), 4)
        )
        order = clustered(making(scores, pattern), Effort(clusterings=60))
        # Sums of 64 float32 scores in two orders.
        assert by_masks(scores, pattern, order) == pytest.approx(best, rel=64 * 2**-23), f"seed {seed}"


@pytest.mark.parametrize("seed", range(4))
def test_exchanges_end_in_the_best_assignment(seed: int) -> None:
    """Against the assignment of channels to places, of which each set has V."""
    generator = torch.Generator().manual_seed(seed)
    sets, shared = 5, 8
    gains = torch.rand(sets * shared, sets, generator=generator).square()
    start = torch.randperm(sets * shared, generator=generator).view(sets, shared)
    members = exchanged(gains, start)
    assert torch.equal(members.flatten().sort().values, torch.arange(sets * shared))
    total = sum(float(gains[members[i], i].double().sum()) for i in range(sets))
    matrix = gains.repeat_interleave(shared, dim=1).double().numpy()
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    # Exchanges are looked for down to a millionth of the whole.
    assert total == pytest.approx(matrix[rows, columns].sum(), rel=5e-6)


@pytest.mark.parametrize("text", ["64:128@64", "4:8@64", "2:4@16", "8:32@16", "64:256@128", "64:128@128"])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_order_keeps_more_than_the_given_one(text: str, seed: int) -> None:
    """Of both sides together, as masks made for the moved weights say; the same again for the same seed."""
    pattern = wide(text)
    maker = trained_like((768, 256), seed).square()
    reader = trained_like((256, 768), seed + 10).square()
    for posed in (making(maker, pattern), making(maker, pattern, reader)):
        order = search(posed, QUICK)
        assert torch.equal(order.sort().values, torch.arange(768))
        assert torch.equal(order, search(posed, QUICK))
        now, then = by_masks(maker, pattern, order), by_masks(maker, pattern, torch.arange(768))
        if posed.columns.shape[1]:
            moved = reader[:, order]
            now += float(moved[magnitude_mask(moved.sqrt(), pattern)].double().sum())
            then += float(reader[magnitude_mask(reader.sqrt(), pattern)].double().sum())
        assert now > 1.01 * then
        # Float32 sums of 768 rows' scores.
        assert kept(posed, order) == pytest.approx(now, rel=768 * 2**-24)
        assert kept(posed, as_given(posed)) == pytest.approx(then, rel=768 * 2**-24)


@pytest.mark.parametrize("text", ["2:4@16", "16:64@16"])
def test_what_clustering_would_cost_the_readers_is_weighed(text: str) -> None:
    """Loud readers in a good order and a faint maker: the order stays at least as good for both together."""
    pattern = wide(text)
    maker = 1e-4 * trained_like((128, 64), 3).square()
    reader = trained_like((64, 128), 4).square()
    start = search(making(maker, pattern, reader), Effort())
    posed = making(maker[start], pattern, reader[:, start])
    order = search(posed, QUICK)
    assert kept(posed, order) >= kept(posed, as_given(posed))


def test_channels_that_fill_one_set_stay() -> None:
    posed = making(trained_like((64, 128), 5).square(), wide("64:128@64"))
    assert torch.equal(search(posed, QUICK), torch.arange(64))


class Residual(nn.Module):
    """A stream that three layers add to, norms, a depthwise convolution and PReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 1)
        self.norm = nn.BatchNorm2d(64)
        self.expand = nn.Conv2d(64, 128, 1, bias=True)
        self.depthwise = nn.Conv2d(128, 128, 3, padding=1, groups=128)
        self.act = nn.PReLU(128)
        self.project = nn.Conv2d(128, 64, 1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.project(self.act(self.depthwise(self.expand(x))))
        found: Tensor = self.head(x.mean(dim=(2, 3)))
        return found


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with weights and norms that differ from channel to channel, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            made = trained_like(tuple(parameter.shape), seed + number) if parameter.ndim > 1 else None
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5 if made is None else made)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


@pytest.mark.parametrize("text", ["2:4@16", "4:8@32", "16:32@16", "8:16@64"])
@pytest.mark.parametrize("sides", ["both", "outputs", "inputs"])
def test_an_order_travels_through_residuals_norms_and_depthwise(text: str, sides: str) -> None:
    model = trained(Residual())
    inputs = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(inputs)
    options = PermutationOptions("energy", sides=sides, effort=QUICK)  # type: ignore[arg-type]
    report = permute(model, inputs, text, include=("expand", "project"), options=options)
    with torch.no_grad():
        after = model(inputs)
    # Reordered float32 sums of at most 128 terms through five layers.
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert report.difference <= report.tolerance
    assert report.after > report.before or (sides == "inputs" and report.after == report.before)
    for row in report.layers:
        weight = dict(model.named_parameters())[row.name].detach().flatten(1)
        energy = weight[magnitude_mask(weight, Pattern.parse(text))].square().sum() / weight.square().sum()
        # Sums of 8,192 float32 squares.
        assert row.after == pytest.approx(float(energy), rel=1e-4)


@pytest.mark.parametrize("text", ["2:4@16", "8:16@16", "16:32@16"])
def test_heads_and_feed_forward_of_attention(text: str) -> None:
    model = trained(nn.TransformerEncoderLayer(64, 2, 128, batch_first=True))
    inputs = torch.rand(2, 5, 64, generator=torch.Generator().manual_seed(2))
    report = permute(model, inputs, text, options=PermutationOptions("energy", effort=QUICK))
    rows = {row.name: row for row in report.layers}
    for name in ("linear1.weight", "self_attn.in_proj_weight"):
        assert rows[name].after > rows[name].before
    assert report.difference <= report.tolerance


def test_the_layers_outputs_decide_where_inputs_are_given() -> None:
    """Input channels that are never on count for nothing, however large their weights."""
    model = trained(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)))
    quiet = torch.ones(64)
    quiet[:32] = 1e-3
    batches = [torch.randn(40, 64, generator=torch.Generator().manual_seed(s)) * quiet for s in range(2)]
    with torch.no_grad():
        model[0].weight[:, :32] *= 30.0
    found = {}
    for score in ("energy", "output"):
        moved = trained(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)))
        moved.load_state_dict(model.state_dict())
        calibration = Calibration(batches, bfloat16=False) if score == "output" else None
        options = PermutationOptions(score, calibration=calibration, effort=QUICK)  # type: ignore[arg-type]
        report = permute(moved, batches[0], "4:8@16", include=EVERY, exclude=("2",), options=options)
        assert report.applied == 1
        kept = kept_of_outputs(moved[0].weight.detach(), torch.cat(batches), wide("4:8@16"))
        if score == "output":
            assert report.after == pytest.approx(kept, rel=1e-3)
        found[score] = kept
    assert found["output"] > found["energy"]


def removal_costs(inputs: Tensor) -> Tensor:
    """1 / [H^-1]_jj in float64, H the damped second moments of inputs [rows, columns]."""
    hessian = inputs.double().T @ inputs.double() / len(inputs)
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
    return (1.0 / torch.linalg.inv(hessian).diagonal()).float()


def kept_of_outputs(weight: Tensor, inputs: Tensor, pattern: GroupPattern) -> float:
    """The part of the sum of w^2 / [H^-1]_jj that the best mask for it keeps."""
    scores = weight.square() * removal_costs(inputs)
    return float(scores[magnitude_mask(scores.sqrt(), pattern)].sum() / scores.sum())


def test_importance_is_what_removing_a_weight_costs() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Conv2d(4, 6, (1, 2), groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    inputs = torch.randn(50, 4, 1, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = ["0.weight", "3.weight"]
    found = output_importance(model, names, wide("2:4@2"), Calibration([inputs], bfloat16=False))
    assert set(found) == set(names)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for group in range(2):
        some = inputs[:, 2 * group : 2 * group + 2, 0]
        windows = torch.cat([some[:, :, tap : tap + 3] for tap in range(2)], dim=1)
        costs = removal_costs(windows.transpose(1, 2).reshape(-1, 4)).view(2, 2).t()
        ratio = found["0.weight"][3 * group : 3 * group + 3, :, 0] / costs
        # Each layer has a scale of its own; the damped Hessian's condition stays below 1e3: 1e3 * 6e-8.
        torch.testing.assert_close(ratio, ratio[:1, :1, :1].expand_as(ratio), rtol=1e-4, atol=0)
    for name in names:
        weight = dict(model.named_parameters())[name].detach()
        assert float((weight.square() * found[name]).sum()) == pytest.approx(1.0, rel=1e-5)


def test_a_class_is_searched_again_only_where_its_layers_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    import openwork.sparsity.permutation.permutation as module

    asked: list[int] = []
    original = module.search

    def counting(problem: Problem, effort: Effort) -> Tensor:
        asked.append(problem.channels)
        return original(problem, effort)

    monkeypatch.setattr(module, "search", counting)
    alone = trained(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8)))
    permute(
        alone, torch.rand(2, 8), "2:4@16", include=EVERY, options=PermutationOptions(effort=QUICK, passes=3)
    )
    assert asked == [64]
    asked.clear()
    chain = trained(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 32), nn.Linear(32, 16), nn.Linear(16, 8)))
    permute(chain, torch.rand(2, 8), "2:4@16", include=EVERY, options=PermutationOptions(effort=QUICK))
    assert asked.count(32) == 2


def test_two_of_four_stays_asp_s() -> None:
    """After clustering for 2:4@16 the masks that sets share are 2:4 in each row, which is what ASP checks."""
    model = trained(
        nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))
    )
    inputs = torch.rand(3, 32)
    report = permute(model, inputs, "2:4@16", options=PermutationOptions("energy", effort=QUICK))
    assert report.applied
    asp = AutomaticSparsity()
    asp.init_model_for_pruning(model, "2:4@16", allow_permutation=False)
    asp.compute_sparse_masks()
    asp.verify()
    for module in (model[0], model[2], model[4]):
        assert Pattern.parse("2:4").holds(module.weight.detach().numpy())
        assert Pattern.parse("2:4@16").holds(module.weight.detach().numpy())


def test_clustered_layers_lose_less_when_they_are_pruned() -> None:
    """The whole road: cluster on calibration inputs, prune by SparseGPT, compare the model's outputs."""
    inputs = [torch.randn(64, 32, generator=torch.Generator().manual_seed(s)) for s in range(2)]
    lost = {}
    for cluster in (False, True):
        model = trained(nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32)))
        with torch.no_grad():
            dense = torch.cat([model(x) for x in inputs])
        calibration = Calibration(inputs, bfloat16=False)
        if cluster:
            options = PermutationOptions("output", calibration=calibration, effort=QUICK)
            permute(model, inputs[0], "16:32@16", include=EVERY, options=options)
        pruner = Pruner(model, "16:32@16", EVERY)
        pruner.prune("sparsegpt", calibration)
        pruner.verify()
        with torch.no_grad():
            pruned = torch.cat([model(x) for x in inputs])
        lost[cluster] = float((pruned - dense).square().sum())
    assert np.isfinite(lost[True])
    assert lost[True] < lost[False]


def test_a_model_without_a_layer_wide_enough_says_so() -> None:
    report = permute(
        nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)), torch.randn(2, 16), "2:4@64"
    )
    assert "No layer that was chosen has as many channels as 2:4@64 needs: 4 input channels and 64" in str(
        report
    )


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"passes": 0}, ValueError, "The number of passes of a permutation is at least 1"),
        ({"passes": 1.5}, TypeError, "The number of passes of a permutation is a whole number"),
        ({"effort": 3}, TypeError, "The effort of a permutation is an Effort"),
        ({"progress": "no"}, TypeError, "progress is True or False, but it is 'no'"),
    ],
)
def test_options_of_another_kind_are_refused(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        PermutationOptions(**options)
