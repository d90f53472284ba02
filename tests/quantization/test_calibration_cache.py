"""The calibration cache of torch models, and ONNX models through the same functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from openwork.quantization import QuantizationOptions, calibrate, prepare, quantize
from openwork.quantization.calibration.model_cache import model_digest
from openwork.quantization.float_onnx import QuantizedOnnx
from openwork.quantization.scales.cache import StaleCache, read_cache
from quant_models import images, small_resnet


def _mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).eval()


def test_a_cache_gives_the_very_same_model_without_data(tmp_path: Path) -> None:
    data, path = images(), tmp_path / "scales.json"
    first = calibrate(prepare(small_resnet(), data[0]), data, cache=path)
    second = calibrate(prepare(small_resnet(), data[0]), None, cache=path)
    assert torch.equal(first(data[0]), second(data[0]))
    theirs = second.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in first.state_dict().items())


def test_multipliers_are_kept(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.tensor([1.0, 1, 1, 40, 1, 1])
    data, path = [torch.randn(32, 6, generator=generator) * wide for _ in range(3)], tmp_path / "scales.json"
    net, options = _mlp(), QuantizationOptions(style="openwork")
    with torch.no_grad():
        net.get_parameter("1.weight")[2] = 30.0
    first = calibrate(prepare(net, data[0], options), data, cache=path)
    assert any(entry.multiplier is not None for entry in read_cache(path).tensors.values())
    second = calibrate(prepare(net, data[0], options), None, cache=path)
    assert torch.equal(first(data[0]), second(data[0]))


def test_the_cache_is_readable(tmp_path: Path) -> None:
    data, path = images(), tmp_path / "scales.json"
    calibrate(prepare(small_resnet(), data[0]), data, cache=path)
    document = json.loads(path.read_text())
    assert document["version"] == 1
    assert document["settings"]["style"] == "tensorrt"
    assert document["tensors"]["conv1"]["dtype"] == "s8"
    assert document["tensors"]["conv1"]["values"] == 3 * 4 * 3 * 8 * 8


@pytest.mark.parametrize("what", ["weights", "structure", "options"])
def test_the_cache_of_another_model_is_refused(tmp_path: Path, what: str) -> None:
    data, path = [torch.randn(8, 6) for _ in range(2)], tmp_path / "scales.json"
    calibrate(prepare(_mlp(), data[0]), data, cache=path)
    net, options = _mlp(1 if what == "weights" else 0), QuantizationOptions()
    if what == "structure":
        net.append(nn.Tanh())
    if what == "options":
        options = QuantizationOptions(observer="max")
    with pytest.raises(StaleCache, match="observer = 'mse'" if what == "options" else "another model"):
        calibrate(prepare(net, data[0], options), data, cache=path)


def test_the_digest_knows_the_model_and_not_what_calibration_chose() -> None:
    data = [torch.randn(8, 6) for _ in range(2)]
    prepared = prepare(_mlp(), data[0], QuantizationOptions(style="openwork"))
    before = model_digest(prepared.model)
    assert model_digest(calibrate(prepared, data)) == before
    assert model_digest(prepare(_mlp(), data[0], QuantizationOptions(style="openwork")).model) == before


def test_nothing_to_calibrate_with_is_refused(tmp_path: Path) -> None:
    prepared = prepare(_mlp(), torch.randn(2, 6))
    with pytest.raises(ValueError, match="Calibration needs data"):
        calibrate(prepared, None, cache=tmp_path / "none.json")
    with pytest.raises(ValueError, match="has its options already"):
        calibrate(prepared, [torch.randn(2, 6)], options=QuantizationOptions())
    wrong: Any = 3
    with pytest.raises(TypeError, match="but int came"):
        calibrate(wrong, [])


def _gemm() -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "only", transB=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_onnx_models_go_the_same_way(tmp_path: Path) -> None:
    data = np.random.default_rng(1).standard_normal((32, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=data)
    onnx.save(_gemm(), tmp_path / "net.onnx")
    cache = tmp_path / "scales.json"
    found = calibrate(tmp_path / "net.onnx", tmp_path / "data.npz", cache=cache)
    again = quantize(_gemm(), None, cache=cache)
    assert isinstance(found, QuantizedOnnx)
    assert again.cached
    assert found.model == again.model
    with pytest.raises(ValueError, match="takes no `keep`"):
        calibrate(_gemm(), data, keep=lambda _: torch.ones(1))


def test_a_float_module_is_prepared_on_the_first_batch(tmp_path: Path) -> None:
    data = np.random.default_rng(1).standard_normal((32, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", input=data)
    net = _mlp()
    found = calibrate(net, tmp_path / "data.npz", options=QuantizationOptions(observer="max"))
    wanted = quantize(net, torch.from_numpy(data), QuantizationOptions(observer="max"))
    x = torch.from_numpy(data)
    assert torch.equal(found(x), wanted(x))
