"""Bias correction: means that become right, errors that do not grow, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.quantization import QuantizationOptions, calibrate, prepare, quantize
from openwork.quantization.corrections import bias_correction as correction
from openwork.quantization.corrections.bias_correction import correct_biases
from openwork.quantization.fake_quantization.switches import in_float
from quant_models import images, small_resnet
from two_workers import expect_agreement


def _coarse(bias: bool = True, seed: int = 0) -> tuple[nn.Module, list[Tensor]]:
    """A net whose quantized activations are clipped far below their largest, so that means shift."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=bias), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4, bias=bias), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 5, bias=bias),
    ).eval()  # fmt: skip
    data = images(count=4, batch=8)
    return calibrate(
        prepare(net, data[0], QuantizationOptions(observer="percentile", percentile=80.0)), data
    ), data


def _means(model: nn.Module, data: list[Tensor], name: str) -> Tensor:
    rows: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _m, _x, y: rows.append(y.detach().double().movedim(1, -1).flatten(0, -2))
    )
    with torch.no_grad():
        for batch in data:
            model(batch)
    handle.remove()
    return torch.cat(rows).mean(0)


@pytest.mark.parametrize("bias", [True, False])
def test_every_layer_s_mean_becomes_that_of_the_float_model(bias: bool) -> None:
    model, data = _coarse(bias)
    with in_float(model):
        wanted = {name: _means(model, data, name) for name in ("0", "2", "5")}
    shifted = {name: _means(model, data, name) for name in wanted}
    assert float((shifted["5"] - wanted["5"]).abs().max()) > 1e-3
    found = correct_biases(model, data)
    assert found.kept
    assert found.after < found.before
    assert [row.name for row in found.layers] == ["0", "2", "5"]
    assert all(row.done for row in found.layers)
    assert all(("did not have" in row.reason) is not bias for row in found.layers)
    for name, mean in wanted.items():
        # The bias is binary32, and a mean over n numbers of size 1 is off by a few 2^-24.
        torch.testing.assert_close(_means(model, data, name), mean, rtol=0, atol=1e-6)
    assert found.layers[0].shift == pytest.approx(float((shifted["0"] - wanted["0"]).abs().max()), rel=1e-4)


def test_the_first_layer_s_correction_is_the_one_by_hand() -> None:
    model, data = _coarse()
    layer: Any = model.get_submodule("0")
    before = layer.bias.detach().clone()
    rounded = torch.cat([layer(x).detach() for x in data]).double().mean((0, 2, 3))
    exact = torch.cat(
        [nn.functional.conv2d(x, layer.weight, before).detach() for x in data]
    ).double().mean((0, 2, 3))  # fmt: skip
    correct_biases(model, data)
    torch.testing.assert_close(layer.bias.detach().double(), before + exact - rounded, rtol=1e-5, atol=1e-7)


def test_padding_does_not_count() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    data = torch.randn(3, 8, 5, 4)
    kept = torch.arange(5).expand(8, 5) < torch.arange(1, 9).clamp(max=5)[:, None]
    model = quantize(
        net, list(data), QuantizationOptions(observer="percentile", percentile=90.0), keep=lambda _: kept
    )
    with in_float(model):
        wanted = torch.cat([model(x)[kept] for x in data]).detach().mean(0)
    correct_biases(model, list(data), keep=lambda _: kept)
    found = torch.cat([model(x)[kept] for x in data]).detach().mean(0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) - torch.relu(self.layer(-x))


def test_a_layer_that_runs_twice_is_corrected_for_both() -> None:
    torch.manual_seed(0)
    data = [torch.randn(64, 4) for _ in range(2)]
    model = quantize(_Twice(), data, QuantizationOptions(observer="percentile", percentile=80.0))
    found = correct_biases(model, data)
    assert [row.name for row in found.layers] == ["layer"]


def test_what_makes_the_outputs_worse_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = _coarse(bias=False)
    true_mean = correction._Run.correct

    def wrong(run: Any, name: str, wanted: Tensor) -> Any:
        return true_mean(run, name, wanted + 1)

    monkeypatch.setattr(correction._Run, "correct", wrong)
    before = [model(x).detach() for x in data]
    found = correct_biases(model, data)
    assert not found.kept
    assert found.after > found.before
    assert {row.reason for row in found.layers} == {"put back: the error of the model's outputs grew"}
    assert all(layer.bias is None for layer in model if isinstance(layer, (nn.Linear, nn.Conv2d)))
    assert all(torch.equal(model(x).detach(), y) for x, y in zip(data, before, strict=True))


def test_shared_layers_are_left_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].bias = net[0].bias
    data = [torch.randn(16, 4) for _ in range(2)]
    found = correct_biases(
        quantize(net, data, QuantizationOptions(observer="percentile", percentile=80.0)), data
    )
    assert {row.reason for row in found.layers} == {"shares its parameters with other layers"}


def test_data_that_do_not_do_are_refused() -> None:
    model, data = _coarse()
    with pytest.raises(ValueError, match="runs through the data once for each layer, but an iterator"):
        correct_biases(model, iter(data))
    with pytest.raises(ValueError, match="needs at least one batch"):
        correct_biases(model, [])
    with pytest.raises(ValueError, match="no quantized layer that runs"):
        correct_biases(nn.Linear(4, 4), [torch.randn(2, 4)])


def test_the_options_ask_for_it() -> None:
    data = images()
    prepared = prepare(small_resnet(), data[0], QuantizationOptions(correct_bias=True, equalize="weights"))
    assert any(row.done for row in prepared.equalized)
    with pytest.raises(ValueError, match="but an iterator was given"):
        calibrate(prepared, iter(data))
    calibrate(prepared, data)
    assert prepared.corrected is not None
    assert prepared.corrected.kept is (prepared.corrected.after <= prepared.corrected.before)
    assert len(prepared.corrected.layers) == 7


WORKER = """
import torch
import torch.distributed as dist
from openwork.quantization import QuantizationOptions, calibrate, correct_biases, prepare
from quant_models import images, small_resnet

data = images(6)
options = QuantizationOptions(observer="percentile", percentile=90.0)
models = [calibrate(prepare(small_resnet(), data[0], options), data) for _ in "abc"]
alone = correct_biases(models[0], data)
assert alone.kept
assert max(row.shift for row in alone.layers) > 1e-2
dist.init_process_group("gloo")
rank = dist.get_rank()
parted = correct_biases(models[1], data[:2] if rank else data[2:])
only_one = correct_biases(models[2], [] if rank else data)
for found, model in ((parted, models[1]), (only_one, models[2])):
    assert abs(found.after - alone.after) <= 1e-2 * alone.after, (found.after, alone.after)
    for name, parameter in model.named_parameters():
        # Sums in another order may put an activation on its neighbour's integer: one step, of at most about
        # 0.1, over at least 6 * 4 * 4 rows.
        torch.testing.assert_close(parameter, models[0].get_parameter(name), rtol=0, atol=1e-3)
try:
    correct_biases(models[1], [])
except ValueError as error:
    assert "at least one batch" in str(error), error
else:
    raise SystemExit("correction without data was not refused")
print("agreed", flush=True)
dist.destroy_process_group()
"""


def test_two_workers_correct_as_one_does(tmp_path: Path) -> None:
    expect_agreement(WORKER, tmp_path)
