"""The pruner: which layers, which masks, and that they hold."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Calibration, Pattern, Pruner, PrunerOptions, layer_table, magnitude_mask


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(32, 16)
        self.hidden = nn.Linear(16, 16)
        self.narrow = nn.Linear(3, 16)
        self.thin = nn.Linear(16, 1)
        self.filter = nn.Conv1d(16, 16, 3)
        self.decoder = nn.Linear(16, 32, bias=False)
        self.decoder.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.hidden(x))


def _model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 8))


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 16, generator=generator)).square().sum().backward()
        optimizer.step()


def test_every_layer_is_eligible_or_has_a_reason() -> None:
    table = {row.name: row.reason for row in layer_table(_Tied(), Pattern.parse("2:4@2"), exclude=["filter"])}
    assert table == {
        "words": "Embedding is looked up, not multiplied, so zeros in it save no work.",
        "hidden": "",
        "narrow": "The layer has 3 input channels, fewer than the 4 that 2:4@2 groups.",
        "thin": "The layer has 1 output channels, fewer than the 2 that 2:4@2 treats alike.",
        "filter": 'The name matches the exclusion "filter".',
        "decoder": "The weight is shared with words.weight.",
    }
    included = {
        row.name: row.reason for row in layer_table(_Tied(), Pattern.parse("4x1:0.5"), include=["hid*"])
    }
    assert included["hidden"] == ""
    assert included["narrow"] == 'The name matches none of the inclusions "hid*".'


def test_a_model_without_an_eligible_layer_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"No layer of this model can carry 4:64\. 0 \(Linear \[24, 16\]\): The layer"
    ):
        Pruner(_model(), "4:64")
    with pytest.raises(ValueError, match="The model has no layer with a weight matrix"):
        Pruner(nn.ReLU(), "2:4")
    with pytest.raises(ValueError, match="'banana' is not a sparsity pattern"):
        Pruner(_model(), "banana")


@pytest.mark.parametrize("text", ["2:4", "4:8", "2:4@2", "4x1:0.5", "1x1:0.75"])
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_pruning_sets_masks_and_weights(text: str, method: str) -> None:
    model, pattern = _model(), Pattern.parse(text)
    pruner = Pruner(model, text)
    calibration = Calibration([(torch.randn(64, 16, generator=torch.Generator().manual_seed(2)),)])
    errors = pruner.prune(method, calibration)  # type: ignore[arg-type]
    pruner.verify()
    assert set(errors) == {"0", "2"}
    assert all(0 < error < 1 for error in errors.values())
    for layer in (model[0], model[2]):
        assert pattern.holds(layer.weight.detach().numpy())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_attached_pruner_holds_the_masks_through_training(kind: type[torch.optim.Optimizer]) -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    before = model[0].weight.detach().clone()
    optimizer = kind(model.parameters(), lr=1e-2)  # type: ignore[call-arg]
    handle = pruner.attach(optimizer)
    _train(model, optimizer)
    pruner.verify()
    assert not torch.equal(before, model[0].weight)
    handle.remove()
    _train(model, optimizer)
    with pytest.raises(
        ValueError, match=r"The weight of 0 is .* at row \d+, column \d+, where its mask drops it"
    ):
        pruner.verify()


def test_another_model_s_optimizer_is_refused() -> None:
    pruner = Pruner(_model(), "2:4")
    with pytest.raises(ValueError, match="The optimizer trains none of the pruned weights"):
        pruner.attach(torch.optim.SGD(_model().parameters(), lr=0.1))


def test_masks_travel_in_the_state_dict() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    state = model.state_dict()
    assert state["0.weight_mask"].dtype == torch.bool
    again = _model(seed=5)
    restored = Pruner(again, "2:4")
    again.load_state_dict(state)
    restored.verify()
    assert all(torch.equal(mask, restored.masks[name]) for name, mask in pruner.masks.items())
    with torch.no_grad():
        again[0].weight += 1
    restored.apply()
    restored.verify()


def test_a_second_pruner_finds_the_masks_of_the_first() -> None:
    model = _model()
    Pruner(model, "2:4").prune()
    Pruner(model, "2:4").verify()
    with pytest.raises(
        ValueError, match="The mask of 0 breaks its pattern: row 0, group 0: 2 non-zero weights where 1:4"
    ):
        Pruner(model, "1:4").verify()


def test_verify_says_which_weight_breaks_which_group() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    with torch.no_grad():
        model[0].weight[3, 8:12] = 2.0
    dropped = (~pruner.masks["0"][3, 8:12]).nonzero()[:, 0].tolist()
    assert pruner.faults() == [
        f"The weight of 0 is 2 at row 3, column {8 + i}, where its mask drops it (group 2 of 2:4)."
        for i in dropped
    ]
    with torch.no_grad():
        model[0].weight[3, 0] = float("nan")
    assert pruner.faults()[-1] == "The weight of 0 holds NaN or infinity."


def test_bad_weights_and_calls_are_refused_and_change_nothing() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    with pytest.raises(ValueError, match='The pruning method must be "magnitude", "wanda" or "sparsegpt"'):
        pruner.prune("best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='The method "sparsegpt" needs calibration inputs'):
        pruner.prune("sparsegpt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bad = torch.full((4, 16), float("nan"))
    with pytest.raises(ValueError, match="The gram matrix holds NaN or infinity"):
        pruner.prune("sparsegpt", Calibration([(torch.randn(4, 16),), (bad,)]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        model[2].weight[1, 2] = float("nan")
    with pytest.raises(ValueError, match="The weight of 2 holds nan at row 1, column 2"):
        pruner.prune()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (
            {"criterion": None},
            'is a Criterion or its name, like "magnitude", but None came; leave the argument',
        ),
        ({"criterion": 3}, "is a Criterion or its name, .* but 3 came"),
        (
            {"schedule": None},
            'A schedule is a Schedule or its text, like "one-shot", but None came; leave the',
        ),
        ({"schedule": 0.5}, "A schedule is a Schedule or its text, .* but 0.5 came"),
        ({"pattern": None}, "None is not a sparsity pattern"),
        ({"options": "global"}, "The options of a pruner are PrunerOptions, but 'global' came"),
    ],
)
def test_what_a_pruner_cannot_prune_with_is_refused_when_it_is_made(wrong: Any, match: str) -> None:
    model = _model()
    with pytest.raises(ValueError, match=match):
        Pruner(model, **{"pattern": "2:4", **wrong})
    assert not hasattr(model[0], "weight_mask")
    Pruner(model, "2:4").prune()


def test_pruning_leaves_the_training_mode_as_it_was() -> None:
    model = _model().train()
    model[1].eval()
    Pruner(model, "2:4").prune("sparsegpt", Calibration([(torch.randn(32, 16),)]))
    assert [module.training for module in model] == [True, False, True]


def test_progress_goes_to_the_standard_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    Pruner(_model(), "2:4").prune("sparsegpt", Calibration([(torch.randn(32, 16),)]), progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pruning to 2:4" in captured.err


class _Every(nn.Module):
    """One layer of every kind that carries a pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.line = nn.Conv1d(8, 8, 3, padding=1)
        self.cube = nn.Conv3d(8, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(self.grouped(torch.relu(self.norm(self.first(x)))))
        y = self.line(y.flatten(2))
        y = self.cube(y[..., None, None]).flatten(2).transpose(1, 2)
        return self.last(self.attention(y, y, y)[0])


def _train_every(
    model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner, steps: int
) -> list[float]:
    generator, zeros = torch.Generator().manual_seed(1), [pruner.zeros]
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(2, 8, 4, 4, generator=generator)) - 1).square().mean().backward()
        optimizer.step()
        zeros.append(pruner.zeros)
    return zeros


@pytest.mark.parametrize("text", ["2:4", "2:4@2", "2:4t", "4x1:0.5", "1x1:0.75"])
@pytest.mark.parametrize("criterion", ["magnitude", "snip-momentum", "movement"])
def test_two_lines_prune_every_kind_of_layer(text: str, criterion: str) -> None:
    torch.manual_seed(0)
    model, pattern = _Every(), Pattern.parse(text)
    pruner = Pruner(model, text, criterion=criterion)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner.attach(optimizer)
    zeros = _train_every(model, optimizer, pruner, 3)
    assert zeros[1:] == [pytest.approx(pattern.zeros, abs=0.01)] * 3
    pruner.verify()
    assert set(pruner.prunables) == {
        "first", "grouped", "up", "line", "cube", "attention.in_proj_weight", "attention.out_proj", "last",
    }  # fmt: skip
    for prunable in pruner.prunables.values():
        assert pattern.holds(prunable.view.matrices(prunable.weight.detach()).numpy())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one-shot", [0.5] * 7),
        ("one-shot:2", [0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5]),
        ("progressive:2:3", [0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5]),
        ("gradual:linear:0:4", [0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]),
        ("sr-ste:4", [0.5] * 7),
    ],
)
def test_zeros_follow_the_schedule(schedule: str, expected: list[float]) -> None:
    torch.manual_seed(0)
    model = _Every()
    pruner = Pruner(model, "2:4", schedule=schedule)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    pruner.attach(optimizer)
    assert _train_every(model, optimizer, pruner, 6) == [pytest.approx(zeros, abs=2e-3) for zeros in expected]
    assert pruner.finished
    pruner.verify()


def test_what_is_dropped_stays_dropped_unless_masks_move() -> None:
    for schedule, stays in (("gradual:cubic:0:12", True), ("sr-ste:12", False)):
        torch.manual_seed(0)
        model = _Every()
        pruner = Pruner(model, "2:4", schedule=schedule, criterion="magnitude")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        pruner.attach(optimizer)
        dropped, returned = torch.zeros(8, 8, dtype=torch.bool), False
        for _ in range(12):
            _train_every(model, optimizer, pruner, 1)
            returned |= bool((dropped & pruner.masks["last"]).any())
            dropped |= ~pruner.masks["last"]
        assert returned != stays, schedule


def test_sr_ste_is_the_paper_s_step() -> None:
    """Against equation 9 of Zhou et al. 2021, written out on one layer with plain SGD."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 4, bias=False)
    dense, rate, strength = layer.weight.detach().clone(), 0.1, 0.03
    pattern = Pattern.parse("2:4")
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate)
    Pruner(layer, "2:4", schedule=f"sr-ste:5:{strength}").attach(optimizer)
    for step in range(6):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        mask = magnitude_mask(dense, pattern)
        assert torch.equal(layer.weight, dense * mask), step
        masked = (dense * mask).requires_grad_()
        nn.functional.linear(x, masked).square().mean().backward()
        assert masked.grad is not None
        if step < 5:
            dense = dense - rate * (masked.grad + strength * torch.where(mask, 0.0, dense))
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
        if step == 4:
            dense = layer.weight.detach().clone()


def test_momentum_of_a_pruned_weight_is_cleared() -> None:
    torch.manual_seed(0)
    model = _model()
    pruner = Pruner(model, "2:4", schedule="one-shot:3")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner.attach(optimizer)
    _train(model, optimizer, 2)
    assert bool((optimizer.state[model[0].weight]["exp_avg"] != 0).all())
    _train(model, optimizer, 3)
    state, mask = optimizer.state[model[0].weight], pruner.masks["0"]
    assert not state["exp_avg"][~mask].any()
    assert not state["exp_avg_sq"][~mask].any()
    assert bool((state["exp_avg"][mask] != 0).all())


def test_patterns_by_layer_name() -> None:
    model = _Every()
    pruner = Pruner(model, {"first": "4:8", "attention*": None, "l*": "1x1:0.75", "*": "2:4"})
    assert {name: str(p.pattern) for name, p in pruner.prunables.items()} == {
        "first": "4:8", "grouped": "2:4", "up": "2:4", "line": "1x1:0.75", "cube": "2:4", "last": "1x1:0.75",
    }  # fmt: skip
    reasons = {row.name: row.reason for row in pruner.table}
    assert reasons["attention.in_proj_weight"] == "No pattern is given for this layer."
    assert pruner.pattern == "first=4:8, attention*=dense, l*=1x1:0.75, *=2:4"
    pruner.detach()
    with pytest.raises(
        ValueError, match=r"A pattern is given for 'frist', but no layer is named so; the layers are"
    ):
        Pruner(model, {"frist": "2:4"})
    with pytest.raises(ValueError, match="The patterns by layer name are empty"):
        Pruner(model, {})


def test_two_pruners_of_one_weight_are_refused() -> None:
    model = _model()
    first = Pruner(model, "2:4", include=["0"])
    with pytest.raises(
        ValueError, match=r"0 is pruned by another Pruner .*; two would undo each other's masks"
    ):
        Pruner(model, "4:8")
    second = Pruner(model, "4:8", include=["2"])
    first.detach()
    Pruner(model, "1:4", include=["0"])
    assert str(second.prunables["2"].pattern) == "4:8"


def test_the_state_goes_on_where_it_was_saved() -> None:
    def begin() -> tuple[nn.Module, Pruner, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = _Every()
        pruner = Pruner(model, "2:4", schedule="sr-ste:9", criterion="snip-momentum")
        return model, pruner, torch.optim.AdamW(model.parameters(), lr=1e-3)

    def state(model: nn.Module, pruner: Pruner, optimizer: torch.optim.Optimizer) -> list[dict[str, object]]:
        return [model.state_dict(), optimizer.state_dict(), pruner.state_dict()]

    whole = begin()
    whole[1].attach(whole[2])
    _train_every(whole[0], whole[2], whole[1], 6)
    parts = begin()
    parts[1].attach(parts[2])
    # The data are drawn anew from the same seed in each call: two halves of three see the same batches twice.
    _train_every(parts[0], parts[2], parts[1], 6)
    saved = io.BytesIO()
    torch.save(state(*parts), saved)
    saved.seek(0)
    again = begin()
    again[1].attach(again[2])
    for part, content in zip(
        (again[0], again[2], again[1]), torch.load(saved, weights_only=True), strict=True
    ):
        part.load_state_dict(content)
    for run in (whole, again):
        _train_every(run[0], run[2], run[1], 6)
    assert whole[1].finished
    assert again[1].steps == 12
    for ours, theirs in zip(whole[0].state_dict().values(), again[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_pruner_s_state_is_refused() -> None:
    model = _model()
    state = Pruner(model, "2:4").state_dict()
    for other, match in (
        (
            Pruner(_model(), "2:4", schedule="sr-ste:4"),
            'another schedule: "one-shot" there, "sr-ste:4:0.0002" here',
        ),
        (Pruner(_model(), "2:4", criterion="snip"), 'another criterion: "magnitude" there, "snip" here'),
        (Pruner(_model(), "4:8"), "another patterns: 0 has 2:4 there, 4:8 here, and 1 more"),
    ):
        with pytest.raises(ValueError, match=match):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="This is not a pruner's state of version 1: it lacks criterion"):
        Pruner(model, "2:4").load_state_dict({"version": 1})
    damaged = {**state, "dense": {"0": torch.zeros(3, 3)}}
    with pytest.raises(ValueError, match=r"The state holds a tensor of shape \[3, 3\] for 0"):
        Pruner(model, "2:4").load_state_dict(damaged)


def test_masks_come_back_from_a_checkpoint_without_masks() -> None:
    model = _Every()
    pruner = Pruner(model, "2:4")
    pruner.prune()
    bare = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("_mask")}
    again = _Every()
    again.load_state_dict(bare)
    restored = Pruner(again, "2:4")
    restored.recover()
    restored.verify()
    assert all(torch.equal(mask, restored.masks[name]) for name, mask in pruner.masks.items())
    with torch.no_grad():
        again.last.weight[0] = 1.0
    with pytest.raises(
        ValueError, match="The weight of last does not keep to 2:4: 4 weights that are not zero"
    ):
        restored.recover()


def test_an_average_of_the_model_takes_the_masks() -> None:
    model = _Every()
    pruner = Pruner(model, "2:4", schedule="one-shot:2")
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner.attach(optimizer)
    for _ in range(3):
        _train_every(model, optimizer, pruner, 1)
        average.update_parameters(model)
    assert bool((average.module.last.weight[~pruner.masks["last"]] != 0).all())
    pruner.apply(to=average)
    assert not average.module.last.weight[~pruner.masks["last"]].any()
    assert torch.equal(average.module.last.weight_mask, pruner.masks["last"])
    with pytest.raises(ValueError, match="The other module lacks some of the pruned weights"):
        pruner.apply(to=_model())


def test_gradients_without_a_step_choose_masks_too() -> None:
    model = _model()
    pruner = Pruner(model, "2:4", criterion="snip")
    with pytest.raises(ValueError, match='The criterion "snip" has seen no gradient of 0 yet'):
        pruner.prune()
    with pytest.raises(
        ValueError, match=r"No pruned weight has a gradient; run a backward pass before observe\(\)"
    ):
        pruner.observe()
    model(torch.randn(4, 16)).square().sum().backward()
    pruner.observe()
    pruner.prune()
    assert model[0].weight.grad is not None
    snip = (model[0].weight * model[0].weight.grad).abs()
    assert bool(Pattern.parse("2:4").holds(pruner.masks["0"].numpy()))
    assert float(snip.detach()[pruner.masks["0"]].sum()) > 0


def test_a_global_budget_gives_layers_what_they_need() -> None:
    torch.manual_seed(0)
    model = _model()
    with torch.no_grad():
        model[0].weight.mul_(0.01)
    pruner = Pruner(model, "1x1:0.5", options=PrunerOptions(scope="global", ceiling=0.6))
    pruner.prune()
    zeros = {name: 1 - float(mask.float().mean()) for name, mask in pruner.masks.items()}
    assert zeros["0"] == pytest.approx(0.6, abs=0.01)
    assert zeros["2"] == pytest.approx(
        0.5 - 0.1 * model[0].weight.numel() / model[2].weight.numel(), abs=0.02
    )
    assert pruner.zeros == pytest.approx(0.5, abs=0.01)
    pruner.verify()
    with pytest.raises(ValueError, match='The scope of a budget is "local" or "global"'):
        PrunerOptions(scope="wide")  # type: ignore[arg-type]


def test_a_mask_of_another_shape_is_refused() -> None:
    model = _model()
    pruner = Pruner(model, "2:4")
    model[0].weight_mask = torch.ones(3, 3, dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"The mask of 0 has the shape \[3, 3\], but its weight has \[24, 16\]"
    ):
        pruner.apply()


def test_the_report_names_every_layer() -> None:
    pruner = Pruner(_Every(), "2:4", exclude=["up"])
    pruner.prune()
    report = pruner.report()
    lines = str(report).splitlines()
    assert lines[1].split()[:5] == ["first", "Conv2d", "16x8x3x3", "2:4", "50.0%"]
    assert lines[-1] == (
        "7 of 8 weights pruned, 50.0% of their weights zero; these are 2,880 of the model's 3,520 parameters"
    )
    rows = {row["name"]: row for row in json.loads(report.json())}
    assert rows["up"] == {
        "name": "up", "kind": "ConvTranspose2d", "shape": [16, 8, 2, 2], "pattern": "2:4", "eligible": False,
        "reason": 'The name matches the exclusion "up".', "zeros": None,
    }  # fmt: skip
    assert rows["first"]["zeros"] == 0.5
