"""The error report against sums written out in NumPy, and the suggestion on a model with one bad layer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.models.resnet import small_resnet
from openwork.quantization import QuantizationOptions, prepare, quantize
from openwork.quantization.errors.measurement import SAMPLE, measure_errors
from openwork.quantization.errors.report import Error, ErrorReport, LayerError
from openwork.quantization.errors.suggestion import suggest
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import Quantized, quantize_layer
from openwork.quantization.fake_quantization.quantized_layers import quantized_layers


class Net(nn.Module):
    """Three linear layers and a quantized sum; `spoilt` makes the scale of the second layer's input bad."""

    def __init__(self, spoilt: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 8)
        self.sum = FakeQuantize.for_activation("sum", "s8")
        self.sum.load_ranges(-6.0, 6.0)
        for name in ("first", "second", "third"):
            layer = quantize_layer(getattr(self, name), name)
            layer.input_quantizer = FakeQuantize.for_activation(name, "s8")
            layer.input_quantizer.load_ranges(-4.0, 4.0)
        assert isinstance(self.second.input_quantizer, FakeQuantize)
        self.second.input_quantizer.load_ranges(-4.0 * spoilt, 4.0 * spoilt)
        for module in self.modules():
            if isinstance(module, FakeQuantize):
                module.quantize()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        return self.third(self.sum(hidden + self.second(hidden)))


def _batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(5, 16, generator=generator) for _ in range(count)]


def _float(model: Net) -> Callable[[Tensor], dict[str, Tensor]]:
    """The float network's outputs, layer by layer, by plain torch."""

    def run(x: Tensor) -> dict[str, Tensor]:
        f = nn.functional.linear
        first = f(x, model.first.weight, model.first.bias)
        second = f(first.relu(), model.second.weight, model.second.bias)
        total = first.relu() + second
        third = f(total, model.third.weight, model.third.bias)
        return {"first": first, "second": second, "sum": total, "third": third}

    return run


def _numpy(exact: list[Tensor], rounded: list[Tensor]) -> tuple[float, float]:
    x, q = (np.concatenate([t.numpy().ravel() for t in ts]).astype(np.float64) for ts in (exact, rounded))
    snr = 10 * np.log10((x**2).sum() / ((q - x) ** 2).sum())
    return float(snr), float(x @ q / np.linalg.norm(x) / np.linalg.norm(q))


@torch.inference_mode()
def test_alone_is_each_layer_rounded_on_the_float_activations() -> None:
    model, batches = Net(), _batches()
    report = measure_errors(model, batches)
    exact = [_float(model)(x) for x in batches]
    inputs = {
        "first": batches,
        "second": [e["first"].relu() for e in exact],
        "sum": [e["sum"] for e in exact],
        "third": [e["sum"] for e in exact],
    }
    assert {layer.name for layer in report.layers} == set(inputs)
    for layer in report.layers:
        module = model.get_submodule(layer.name)
        snr, cosine = _numpy([e[layer.name] for e in exact], [module(x) for x in inputs[layer.name]])
        # The float pass and the plain functions run the same kernels; sums differ in order only.
        assert layer.alone.snr == pytest.approx(snr, abs=1e-4)
        assert layer.alone.cosine == pytest.approx(cosine, abs=1e-9)
        assert layer.alone.values == sum(e[layer.name].numel() for e in exact)


@torch.inference_mode()
def test_accumulated_is_the_quantized_model_against_the_float_one() -> None:
    model, batches = Net(), _batches()
    report = measure_errors(model, batches)
    snr, cosine = _numpy([_float(model)(x)["third"] for x in batches], [model(x) for x in batches])
    assert report.output is not None
    assert report.output.snr == pytest.approx(snr, abs=1e-4)
    last = {layer.name: layer for layer in report.layers}["third"]
    assert last.accumulated == report.output
    assert last.accumulated.cosine == pytest.approx(cosine, abs=1e-9)
    assert last.accumulated.snr < last.alone.snr, "errors of earlier layers come on top"


def test_measuring_leaves_the_model_as_it_was() -> None:
    model = Net().train()
    model.sum.freeze()
    before = {name: q.mode for name, q in model.named_modules() if isinstance(q, FakeQuantize)}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure_errors(model, _batches())
    assert {name: q.mode for name, q in model.named_modules() if isinstance(q, FakeQuantize)} == before
    assert model.training
    assert not model.first._forward_hooks
    for name, tensor in model.state_dict().items():
        assert name.endswith("_extra_state") or torch.equal(tensor, state[name]), name


def test_the_worst_layer_stands_first(tmp_path: Path) -> None:
    report = measure_errors(Net(spoilt=40.0), _batches())
    assert report.worst()[0].name == "second"
    assert report.table().splitlines()[1].startswith("second")
    assert len(report.table(most=2).splitlines()) == 4
    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [layer["name"] for layer in saved["layers"]] == [layer.name for layer in report.worst()]
    assert saved["layers"][0]["alone"]["snr_db"] == pytest.approx(report.worst()[0].alone.snr)
    report.plot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    linear = quantize_layer(nn.Linear(8, 8), "linear")
    model = nn.Sequential(linear)
    x = torch.randn(2, 6, 8)
    keep = torch.ones(2, 6, dtype=torch.bool)
    keep[1, 2:] = False
    padded = measure_errors(model, [x], keep=lambda batch: keep)
    assert padded.layers[0].alone.values == 8 * 8
    plain = measure_errors(model, [x[keep]])
    assert padded.layers[0].alone.noise == pytest.approx(plain.layers[0].alone.noise, rel=1e-6)


def test_a_large_output_is_sampled_at_the_same_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(quantize_layer(nn.Linear(4, 64), "0"))
    x = torch.randn(SAMPLE // 16, 4)
    report = measure_errors(model, [x])
    layer = report.layers[0]
    assert layer.accumulated is not None
    assert (layer.alone.values, layer.accumulated.values) == (4 * SAMPLE, SAMPLE)
    # Noise of SAMPLE independent elements: its mean is known to 1 / sqrt(SAMPLE) = 0.4%, that is 0.02 dB.
    assert layer.accumulated.snr == pytest.approx(layer.alone.snr, abs=0.2)


def test_what_cannot_be_measured_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="needs at least one batch of data, but none came"):
        measure_errors(Net(), [])
    with pytest.raises(ValueError, match="Nothing in the model is quantized"):
        measure_errors(nn.Linear(2, 2), [torch.ones(1, 2)])
    bad = torch.ones(2, 16)
    bad[1, 3] = torch.nan
    with pytest.raises(
        ValueError, match="The float output of first holds 24 values that are NaN or infinite, of 48"
    ):
        measure_errors(Net(), [bad])
    observing = Net()
    observing.sum.observe("max")
    with pytest.raises(ValueError, match="The quantizer of sum is still observing"):
        measure_errors(observing, _batches())
    model = nn.ModuleDict({"net": Net(), "idle": quantize_layer(nn.Linear(3, 3), "idle")})
    model.forward = lambda x: model["net"](x)  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING):
        report = measure_errors(model, _batches())
    assert report.unreached == ("idle",)
    assert "No batch reached idle" in caplog.text
    assert "No batch reached: idle." in report.table()


def test_disabled_quantizers_are_no_layers() -> None:
    model = Net()
    model.sum.disable()
    assert [layer.name for layer in quantized_layers(model)] == ["first", "second", "third"]
    measure_errors(model, _batches())
    assert model.sum.mode == "disabled"


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40), st.integers(0, 5))
def test_sums_do_not_depend_on_how_the_data_is_cut(values: list[float], cut: int) -> None:
    x = torch.tensor(values)
    q = (x * 8).round() / 8
    whole = Error().with_more(x, q)
    parts = Error().with_more(x[:cut], q[:cut]).with_more(x[cut:], q[cut:])
    assert parts.values == whole.values == len(values)
    for name in ("signal", "noise", "cross", "energy"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12, abs=1e-300)


def test_edges_of_an_error() -> None:
    same = Error().with_more(torch.ones(3), torch.ones(3))
    assert (same.snr, same.cosine, same.to_json()) == (float("inf"), 1.0, {"snr_db": None, "cosine": 1.0})
    gone = Error().with_more(torch.zeros(3), torch.ones(3))
    assert (gone.snr, gone.cosine) == (float("-inf"), 0.0)
    lost = Error().with_more(torch.ones(3), torch.zeros(3))
    assert (lost.snr, lost.cosine) == (0.0, 0.0)
    with pytest.raises(ValueError, match="The accumulated errors were not measured"):
        ErrorReport((LayerError("a", "Linear", same),), None, 1).table("accumulated")


def _metric(batches: list[Tensor], model: Net) -> Callable[[nn.Module], float]:
    """1 - relative error against the float network: an accuracy whose right answers are known."""
    exact = [_float(model)(x)["third"] for x in batches]

    def metric(tried: nn.Module) -> float:
        with torch.inference_mode():
            off = sum(float((tried(x) - y).square().sum()) for x, y in zip(batches, exact, strict=True))
        return 1 - (off / sum(float(y.square().sum()) for y in exact)) ** 0.5

    return metric


@torch.inference_mode()
def test_the_bad_layer_is_suggested() -> None:
    model, batches = Net(spoilt=40.0), _batches()
    metric = _metric(batches, model)
    found = suggest(model, metric, wanted=0.96)
    assert found.layers == ("second",)
    assert found.quantized_accuracy < 0.96 <= found.accuracy <= found.float_accuracy == 1.0
    assert found.reached
    assert "second" in found.text()
    assert {step.layer for step in found.steps} >= {"first", "second", "third", "sum"}
    assert json.loads(json.dumps(found.to_json()))["layers"] == ["second"]
    with_report = suggest(model, metric, 0.96, report=measure_errors(model, batches))
    assert with_report.layers == ("second",)
    assert len(with_report.steps) < len(found.steps)


@torch.inference_mode()
def test_nothing_is_suggested_where_nothing_is_needed_and_what_cannot_be_had_is_said() -> None:
    model, batches = Net(), _batches()
    metric = _metric(batches, model)
    enough = suggest(model, metric, wanted=0.5)
    assert (enough.layers, enough.reached) == ((), True)
    assert "Every layer can stay quantized." in enough.text()
    other = _metric(_batches(5)[3:], model)
    never = suggest(model, metric, wanted=1.5, check=other)
    assert not never.reached
    assert set(never.layers) == {"first", "second", "third", "sum"}
    assert "Not reached" in never.text()
    assert never.checked == 1.0, "all in float on the other data"
    assert metric(model) == enough.quantized_accuracy, "the model is as it was"
    with pytest.raises(ValueError, match="The metric must give a finite number, but it gave nan"):
        suggest(model, lambda tried: float("nan"), 0.5)


@torch.inference_mode()
def test_layers_that_share_a_quantizer_go_to_float_together() -> None:
    model, batches = Net(spoilt=40.0), _batches()
    assert isinstance(model.second, Quantized)
    model.third.input_quantizer = model.second.input_quantizer
    found = suggest(model, _metric(batches, model), wanted=0.96)
    assert found.layers == ("second", "third")


@torch.inference_mode()
def test_a_layer_that_a_later_one_made_needless_goes_back() -> None:
    """The first in the order helps a little, the second enough for both."""
    model, batches = Net(spoilt=40.0), _batches()
    order = [
        LayerError(name, "Linear", Error(1.0, noise)) for name, noise in (("first", 9.0), ("second", 1.0))
    ]
    found = suggest(model, _metric(batches, model), 0.96, report=ErrorReport(tuple(order), None, 1))
    assert [(step.layer, step.in_float) for step in found.steps] == [
        ("first", True), ("second", True), ("first", False)
    ]  # fmt: skip
    assert found.layers == ("second",)


def test_a_suggestion_is_what_prepare_excludes() -> None:
    """On a prepared residual network: the operands of a sum go together, under the sum's name."""
    torch.manual_seed(0)
    network = small_resnet(widths=(8, 16)).eval()
    batches = [torch.randn(4, 1, 8, 8) for _ in range(3)]
    model = quantize(network, batches)
    report = measure_errors(model, batches)
    names = {layer.name for layer in report.layers}
    assert {"conv1", "fc", "layer2.0.add0_left_quantizer", "layer2.0.add0_right_quantizer"} <= names
    assert all(20 < layer.alone.snr < 60 for layer in report.layers)

    def metric(tried: nn.Module) -> float:
        with torch.inference_mode():
            return -sum(float((tried(x) - network(x)).square().sum()) for x in batches)

    found = suggest(model, metric, wanted=0.0, report=report)
    known = {choice.name for choice in prepare(network, batches[0]).choices}
    assert {"layer2.0.add0", "conv1"} <= set(found.layers) <= known
    some = tuple(name for name in found.layers if name != "conv1")
    left = prepare(network, batches[0], QuantizationOptions(exclude=some))
    assert left.layers == ["conv1"]
