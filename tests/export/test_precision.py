"""Modules in half and double precision, and models that an exporter of torch cannot write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from openwork.export import ExportOptions, export
from openwork.graph import model_files
from openwork.quantization import QuantizationOptions, quantize
from openwork.quantization.fake_quantization.switches import quantizers
from openwork.sparsity import Calibration, Pruner, permute

STYLES = ("tensorrt", "onnxruntime", "openwork")
EXPORTERS = ("dynamo", "legacy")
HALVES = (torch.float16, torch.bfloat16)


class Mixed(nn.Module):
    """A convolution, attention, a LayerNorm that multipliers fold into, and two Linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 4, 3, padding=1), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) + self.attention(x, x, x, need_weights=False)[0]
        return self.second(torch.relu(self.first(self.norm(x))))


def mixed(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(4, 4, 16, dtype=dtype)
    # One channel is far larger than the others, so that multipliers are worth it.
    x[..., 3] *= 20
    model = Mixed().eval().to(dtype)
    Pruner(model, "2:4").prune()
    return model, x


def run(path: Path, x: Tensor) -> np.ndarray[Any, Any]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x.float().numpy()})[0])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_a_quantized_model_is_written_in_float32(
    dtype: torch.dtype, style: Any, exporter: Any, tmp_path: Path
) -> None:
    model, x = mixed(dtype)
    quantized = quantize(model, [x], QuantizationOptions(style=style))
    path = export(quantized, {"x": x}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
    single = copy.deepcopy(quantized).float()
    with torch.no_grad():
        expected, computed = single(x.float()).numpy(), quantized(x)
    assert computed.dtype == dtype
    # The same integers and scales; sums in another order, as everywhere.
    np.testing.assert_allclose(run(path, x), expected, rtol=0, atol=2e-6)
    # A few roundings of the half precision that the module computes in, of 11 or 8 bits, in five layers.
    assert abs(computed.float().numpy() - expected).max() < 8 * torch.finfo(dtype).eps + 1e-6
    assert any(prop.key == "openwork.pattern.first.weight" for prop in onnx.load(path).metadata_props)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_float_module_keeps_fp16_and_widens_bf16(exporter: Any, tmp_path: Path) -> None:
    for dtype, written in ((torch.float16, 10), (torch.bfloat16, 1)):
        model, x = mixed(dtype)
        path = export(model, {"x": x}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
        proto = onnx.load(path)
        assert proto.graph.input[0].type.tensor_type.elem_type == written
        stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        weight = model.first.weight.detach().float().numpy()
        assert np.array_equal(stored["first.weight"].astype(np.float32), weight.T), "no weight changes"
        assert next(model.parameters()).dtype == dtype, "the module itself is left alone"
    with torch.no_grad():
        expected = copy.deepcopy(model).float()(x.float()).numpy()
    np.testing.assert_allclose(run(path, x), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("learned", ["no", "amax", "step"])
def test_scales_stay_float32_where_the_model_is_made_half(dtype: torch.dtype, learned: Any) -> None:
    model, x = mixed(torch.float32)
    quantized = quantize(model, [x * 1e-6], QuantizationOptions(learned=learned))
    before = [q.scales() for q in quantizers(quantized)]
    after = quantizers(quantized.to(dtype))
    assert all(q.scale.dtype == torch.float32 for q in after)
    for one, q in zip(before, after, strict=True):
        assert all(map(torch.equal, one, q.scales()))
    assert quantized.first.weight.dtype == dtype
    assert quantized(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("dtype", HALVES)
def test_half_modules_are_pruned_and_permuted(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval().to(dtype)
    x = torch.randn(4, 16, dtype=dtype)
    permute(model, x, "2:4")
    for method in ("magnitude", "wanda", "sparsegpt"):
        pruner = Pruner(copy.deepcopy(model), "2:4")
        pruner.prune(method, None if method == "magnitude" else Calibration([x]))
        assert pruner.zeros == 0.5
        pruner.verify()
        assert all(parameter.dtype == dtype for parameter in pruner.model.parameters())


class Conditional(nn.Module):
    """Reads a number out of a tensor and lets it decide."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.sum()) > 0 else x


class Bessel(nn.Module):
    """A function that the legacy exporter does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1e(x)


def test_what_torchs_exporters_raise_is_one_sentence(tmp_path: Path) -> None:
    x = torch.ones(3, 4)
    path = tmp_path / "m.onnx"
    sentence = (
        r"torch's dynamo exporter cannot write this model \(GuardOnDataDependentSymNode: [^\n]+\)\. "
        r"Export it with ExportOptions\(exporter=\"legacy\"\), or change what the model does there\."
    )
    with pytest.raises(ValueError, match=sentence):
        export(Conditional().eval(), {"x": x}, path)
    export(Conditional().eval(), {"x": x}, path, ExportOptions(exporter="legacy"))
    sentence = (
        r"torch's legacy exporter cannot write this model \(UnsupportedOperatorError: [^\n]+\)\. "
        r"Export it with ExportOptions\(exporter=\"dynamo\"\), or change what the model does there\."
    )
    with pytest.raises(ValueError, match=sentence):
        export(Bessel().eval(), {"x": x}, path, ExportOptions(exporter="legacy"))


def test_t5_and_swin_by_dynamo_are_refused_with_the_way_out(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    class Encoder(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.model(input_ids=input_ids)[0]

    class Image(Encoder):
        def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
            return self.model(pixel_values=pixel_values)[0]

    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 50}
    swin = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
    for model, batch in (
        (
            Encoder(transformers.T5EncoderModel(transformers.T5Config(**shape))),
            {"input_ids": torch.arange(2, 26).view(2, 12)},
        ),
        (
            Image(transformers.SwinModel(transformers.SwinConfig(**swin, window_size=4))),
            {"pixel_values": torch.randn(2, 3, 32, 32)},
        ),
    ):
        with pytest.raises(
            ValueError, match=r"dynamo exporter cannot write .*Cannot view.*exporter=\"legacy\""
        ):
            export(model.eval(), batch, tmp_path / "m.onnx")
        export(model.eval(), batch, tmp_path / "m.onnx", ExportOptions(exporter="legacy"))


def test_a_model_too_large_for_one_file_has_its_tensors_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = mixed(torch.float32)
    quantized = quantize(model, [x])
    one = export(quantized, {"x": x}, tmp_path / "one.onnx")
    monkeypatch.setattr(model_files, "LARGEST_MESSAGE", 1000)
    monkeypatch.setattr(model_files, "LARGE", 256)
    two = export(quantized, {"x": x}, tmp_path / "two.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.onnx", "two.onnx", "two.onnx.data"]
    assert np.array_equal(run(one, x), run(two, x))
    assert onnx.load(two).metadata_props == onnx.load(one).metadata_props
