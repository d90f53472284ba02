"""Sensitivity: the loss of pruning one layer, a model left as it was, a run that goes on where it stopped."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openwork.sparsity import Calibration, Pattern, Pruner
from openwork.sparsity.allocation.fingerprint import inputs_digest, model_digest
from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.sparsity.allocation.sensitivity_measurement import Loss, SensitivityOptions, measure_sensitivity
from openwork.sparsity.allocation.sensitivity_plot import plot_sensitivity

PATTERNS = ["2:4", "1:4", "4x1:0.5"]


def _model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(128, 4)
    )


def _data(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 3, 6, 6, generator=generator), torch.randint(0, 4, (16,), generator=generator)


class _Counted:
    """A loss that counts its calls, and may be told to fail at one of them."""

    def __init__(self, seed: int = 1, fail_at: int = 0, error: type[BaseException] = RuntimeError) -> None:
        self.inputs, self.labels = _data(seed)
        self.calls, self.fail_at, self.error = 0, fail_at, error

    def __call__(self, model: nn.Module) -> float:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error("told to fail")
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(self.inputs), self.labels))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)


def test_each_loss_is_that_of_a_copy_with_one_layer_pruned() -> None:
    model, loss = _model().eval(), _Counted()
    found = measure_sensitivity(model, loss, PATTERNS)
    assert found.dense == loss(model)
    for name, text in (("5", "2:4"), ("5", "1:4"), ("0", "4x1:0.5"), ("5", "4x1:0.5")):
        twin = copy.deepcopy(model)
        Pruner(twin, text, include=[name]).prune()
        assert found.losses[name][text] == loss(twin)
        assert found.increase(name, text) == loss(twin) - found.dense
    assert set(found.losses["0"]) == {"4x1:0.5"}
    assert "3 input channels" in found.refused["0"]["2:4"]
    assert found.patterns == ("2:4", "1:4", "4x1:0.5")


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_as_it_was(training: bool) -> None:
    model = _model().train(training)
    model[1].eval()
    before, modes = _state(model), [module.training for module in model.modules()]
    random = torch.get_rng_state()

    def disturbing(module: nn.Module) -> float:
        assert not module.training
        model[1].running_mean.add_(1.0)
        model[1].train()
        return _Counted()(module) + float(torch.rand(()))

    found = measure_sensitivity(model, disturbing, ["2:4"])
    assert _same(model, before)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(name.endswith("_mask") for name in model.state_dict())
    assert len(found.losses) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_goes_on_where_it_was_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    model, path = _model(), tmp_path / "sensitivity.json"
    before = _state(model)
    options = SensitivityOptions(path=path)
    with pytest.raises(error, match="told to fail"):
        measure_sensitivity(model, _Counted(fail_at=4, error=error), PATTERNS, options=options)
    assert _same(model, before)
    assert model.training
    # The dense loss and two more of the four; the third failed.
    again = _Counted()
    resumed = measure_sensitivity(model, again, PATTERNS, options=options)
    assert again.calls == 3
    assert resumed == measure_sensitivity(model, _Counted(), PATTERNS)
    finished = _Counted()
    assert measure_sensitivity(model, finished, PATTERNS[:1], options=options).patterns == ("2:4",)
    assert finished.calls == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["sensitivity.json"]


@pytest.mark.parametrize(
    ("model_seed", "data_seed", "said"),
    [
        (1, 1, "was measured on another model: its weights are not these. Remove the file, or name another."),
        (0, 2, "was measured with another data set or another loss: the dense model's loss was "),
    ],
)
def test_refuses_the_file_of_another_run(tmp_path: Path, model_seed: int, data_seed: int, said: str) -> None:
    options = SensitivityOptions(path=tmp_path / "s.json")
    measure_sensitivity(_model(), _Counted(), ["2:4"], options=options)
    with pytest.raises(ValueError, match=re.escape(said)):
        measure_sensitivity(_model(model_seed), _Counted(data_seed), ["2:4"], options=options)


def test_refuses_files_of_another_method_or_calibration_or_kind(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    wanda = [Calibration([_data(seed)[0]], bfloat16=False) for seed in (1, 2)]
    first = SensitivityOptions("wanda", wanda[0], path)
    measure_sensitivity(_model(), _Counted(), ["2:4"], options=first)
    with pytest.raises(ValueError, match="was measured by another method"):
        measure_sensitivity(_model(), _Counted(), ["2:4"], options=SensitivityOptions(path=path))
    other = SensitivityOptions("wanda", wanda[1], path)
    with pytest.raises(ValueError, match="was measured with other calibration inputs"):
        measure_sensitivity(_model(), _Counted(), ["2:4"], options=other)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    with pytest.raises(ValueError, match="has the version 9, but this reads 1"):
        measure_sensitivity(_model(), _Counted(), ["2:4"], options=first)
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no file of sensitivities"):
        measure_sensitivity(_model(), _Counted(), ["2:4"], options=first)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_calibrated_methods_measure_what_the_pruner_does(method: str) -> None:
    model, loss = _model().eval(), _Counted()
    before = _state(model)
    calibration = Calibration([_data()[0]], bfloat16=False)
    options = SensitivityOptions(method, calibration)  # type: ignore[arg-type]
    found = measure_sensitivity(model, loss, ["2:4"], options=options)
    assert _same(model, before)
    Pruner(model, "2:4", include=["5"]).prune(method, calibration)  # type: ignore[arg-type]
    assert found.losses == {"5": {"2:4": loss(model)}}
    assert found.method == method


def test_an_infinite_loss_is_kept_and_comes_back(tmp_path: Path) -> None:
    model = _model()
    weight = model[5].weight.detach().clone()
    loss: Loss = lambda module: 1.0 if torch.equal(module[5].weight, weight) else math.nan  # noqa: E731
    path = tmp_path / "s.json"
    found = measure_sensitivity(model, loss, ["2:4"], options=SensitivityOptions(path=path))
    assert found.losses["5"]["2:4"] == math.inf
    assert Sensitivity.from_json(found.json()) == found
    assert measure_sensitivity(model, loss, ["2:4"], options=SensitivityOptions(path=path)) == found
    plot_sensitivity(found, tmp_path / "lost.svg")


def test_bad_input_is_refused_in_a_sentence() -> None:
    model, loss = _model(), _Counted()
    with pytest.raises(ValueError, match=r"No layer of this model can carry any of 2:256\."):
        measure_sensitivity(model, loss, ["2:256"])
    with pytest.raises(ValueError, match="The patterns are a list with at least one"):
        measure_sensitivity(model, loss, "2:4")
    with pytest.raises(ValueError, match="The loss of the model before any pruning is nan"):
        measure_sensitivity(model, lambda _: math.nan, ["2:4"])
    with pytest.raises(ValueError, match='The method "wanda" needs calibration inputs'):
        SensitivityOptions("wanda")
    with pytest.raises(ValueError, match='The method "magnitude" takes no calibration inputs'):
        SensitivityOptions(calibration=Calibration([_data()[0]]))
    with pytest.raises(ValueError, match="but the method is 'guess'"):
        SensitivityOptions("guess")  # type: ignore[arg-type]
    with torch.no_grad():
        model[5].weight[1, 2] = math.nan
    with pytest.raises(ValueError, match="The weight of 5 holds nan at row 1, column 2"):
        measure_sensitivity(model, lambda _: 1.0, ["2:4"])


VALUE = Sensitivity(
    1.0,
    {"first": {"2:4": 1.5, "4:16": 2.25}, "second": {"2:4": 0.75}},
    {"second": {"4:16": "Too narrow."}},
)


def test_the_value_tells_and_travels(tmp_path: Path) -> None:
    assert VALUE.table().splitlines() == [
        "Increase of the loss (1 dense) when one layer is pruned by magnitude",
        "layer     2:4   4:16",
        "first    +0.5  +1.25",
        "second  -0.25      -",
    ]
    assert VALUE.ranked("2:4") == ["first", "second"]
    assert Sensitivity.from_json(VALUE.json()) == VALUE
    plot_sensitivity(VALUE, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="ends in no format of pictures"):
        plot_sensitivity(VALUE, tmp_path / "s.text")
    with pytest.raises(ValueError, match="holds no measured layer"):
        plot_sensitivity(Sensitivity(1.0, {}), tmp_path / "s.png")
    expected = 'The layer "second" was not measured with the pattern "4:16". Too narrow.'
    with pytest.raises(ValueError, match=re.escape(expected)):
        VALUE.increase("second", "4:16")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dense": "much"}, 'has a member "dense", but it is missing or no number.'),
        ({"losses": []}, 'has a member "losses", but it is missing or no object.'),
        ({"losses": {"a": {"2:4": "x"}}}, "The losses of \"a\" are numbers by pattern, but they hold 'x'."),
        ({"losses": {"a": 3}}, 'The losses of "a" are numbers by pattern, but they hold 3.'),
        ({"refused": {"a": {"2:4": 1}}}, 'The refusals of "a" are sentences by pattern'),
    ],
)
def test_refuses_json_that_is_no_sensitivity(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Sensitivity.from_json(json.dumps({**VALUE.document(), **change}))
    with pytest.raises(ValueError, match="is read from JSON, but this is none"):
        Sensitivity.from_json("{")


def test_digests_tell_values_shapes_and_types_apart() -> None:
    model = _model()
    first = model_digest(model)
    assert first == model_digest(copy.deepcopy(model))
    with torch.no_grad():
        model[0].bias[3] += 1e-6
    assert model_digest(model) != first
    assert model_digest(_model().to(torch.bfloat16)) != first
    batches = [{"x": torch.zeros(2, 3)}, (torch.ones(1), 5)]
    assert inputs_digest(batches) == inputs_digest(copy.deepcopy(batches))
    assert inputs_digest(batches) != inputs_digest([{"x": torch.zeros(3, 2)}, (torch.ones(1), 5)])
    assert inputs_digest(batches) != inputs_digest([{"y": torch.zeros(2, 3)}, (torch.ones(1), 5)])


def test_takes_pattern_values() -> None:
    found = measure_sensitivity(_model(), _Counted(), [Pattern.parse("2:4"), "2:4"])
    assert found.patterns == ("2:4",)
