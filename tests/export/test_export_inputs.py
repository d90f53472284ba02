"""Example inputs of an export: every kind of batch that `quantize` takes, by the names of `forward`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from openwork.export import ExportOptions, export
from openwork.quantization import QuantizationOptions, quantize

LEGACY = ExportOptions(exporter="legacy")


class _Two(nn.Module):
    """Two inputs, of which the second may be missing, and a switch that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 4)

    def forward(self, x: Tensor, shift: Tensor | None = None, double: bool = False) -> Tensor:
        y = self.first(x) if shift is None else self.first(x) + shift
        return 2 * y if double else y


class _Open(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return parts[0] + parts[1]


def _inputs(path: Path) -> list[str]:
    return [value.name for value in onnx.load(path).graph.input]


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
def test_what_quantize_takes_as_a_batch_export_takes_as_an_example(tmp_path: Path, exporter: Any) -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 8)
    written = []
    for batch in (rows, rows.numpy(), (rows,), [rows.numpy()], {"input": rows}, {"input": rows.numpy()}):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(8, 4)).eval()
        batches: list[Any] = [batch, batch]
        made = quantize(model, batches, QuantizationOptions(style="openwork"))
        path = export(made, batches[0], tmp_path / "m.onnx", ExportOptions(exporter=exporter))
        assert _inputs(path) == ["input"]
        written.append(path.read_bytes())
    assert set(written) == {written[0]}


def test_a_quantized_layer_takes_its_arguments_by_the_names_of_torch_s(tmp_path: Path) -> None:
    rows = torch.randn(2, 8, 6, 6)
    options = QuantizationOptions(style="openwork")
    for layer, shown in (
        (nn.Linear(6, 4), rows),
        (nn.Conv2d(8, 4, 3), rows),
        (nn.ConvTranspose2d(8, 4, 3), rows),
    ):
        batches = [{"input": shown}] * 2
        quantized = quantize(layer.eval(), batches, options)
        named, placed = quantized(**batches[0]), quantized(shown)
        assert torch.equal(named, placed)
        assert _inputs(export(quantized, batches[0], tmp_path / "m.onnx", LEGACY)) == ["input"]


def test_values_by_position_get_the_names_of_the_parameters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows, shift = torch.randn(2, 8), torch.randn(2, 4)
    path = tmp_path / "m.onnx"
    assert _inputs(export(_Two(), (rows, shift), path, LEGACY)) == ["x", "shift"]
    assert _inputs(export(_Two(), (rows, None), path, LEGACY)) == ["x"]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        labels = torch.arange(2)
        assert _inputs(export(nn.Sequential(nn.Linear(8, 4)), (rows, labels), path, LEGACY)) == ["input"]
    assert "The example holds 2 values, but the model takes 1 of them" in caplog.text


@pytest.mark.parametrize(
    ("model", "batch", "kind", "match"),
    [
        (_Two(), None, TypeError, r"are one batch \(a tensor, .*\), but NoneType came; give one of the batc"),
        (_Two(), "x.npz", TypeError, "but str came"),
        (_Two(), {"input": torch.ones(2, 8)}, ValueError, "none of x; the examples that came are: input"),
        (_Two(), {}, ValueError, "none of x; the examples that came are: none"),
        (_Two(), (), ValueError, "none of x; the examples that came are: 0 by position"),
        (_Two(), {"x": [1, 2]}, ValueError, "example of x must be a tensor or an array, but it is list"),
        (_Two(), (None,), ValueError, "example of x must be a tensor or an array, but it is NoneType"),
        (
            _Two(),
            {"x": torch.ones(2, 8), "double": True},
            ValueError,
            "double must be a tensor .*it is bool",
        ),
        (_Open(), (torch.ones(2, 8),) * 2, ValueError, "2 arguments, but the model's forward names"),
        (_Two(), np.float32(3), TypeError, "but float32 came"),
    ],
)  # fmt: skip
def test_what_is_no_batch_or_has_no_names_is_refused(
    model: nn.Module, batch: Any, kind: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=match):
        export(model, batch, tmp_path / "m.onnx", LEGACY)
    assert list(tmp_path.iterdir()) == []


class _DefaultsBetween(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, scale: float = 2.0, mode: str = "a", y: Tensor | None = None) -> Tensor:
        assert y is not None
        return self.layer(x) * scale + y


class _DefaultsBehind(_DefaultsBetween):
    def forward(self, x: Tensor, y: Tensor, keep: int = 0) -> Tensor:  # type: ignore[override]
        return self.layer(x)[:, -keep:] + y


class _KeywordOnly(_DefaultsBetween):
    def forward(self, x: Tensor, *, y: Tensor, flag: bool = True) -> Tensor:  # type: ignore[override]
        return self.layer(x) + y if flag else x


@pytest.mark.parametrize("model", [_DefaultsBetween, _DefaultsBehind, _KeywordOnly])
def test_the_legacy_exporter_makes_inputs_of_what_is_given_alone(
    model: type[nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    module = model().eval()
    inputs = {"y": torch.randn(2, 8), "x": torch.randn(2, 8)}
    path = export(module, inputs, tmp_path / "m.onnx", LEGACY)
    assert [port.name for port in onnx.load(path).graph.input] == ["x", "y"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        x, y = inputs["x"], inputs["y"]
        expected = module(x, y=y)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert "forward" not in vars(module)
    assert capsys.readouterr().out == ""
