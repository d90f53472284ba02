"""Quantizers of convolutional networks: at squeeze-and-excitation, at residual additions of free sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from convolutional_networks import SMALL, fill, image
from openwork.export import ExportOptions, export
from openwork.quantization import QuantizationOptions, calibrate, prepare
from openwork.quantization.float_onnx import quantize_onnx
from openwork.quantization.placement.choices import factor_for_channels, sizes_differ
from openwork.sparsity import Pruner

STYLES = ("tensorrt", "onnxruntime", "openwork")
FREE = {"images": {0: "batch", 2: "height", 3: "width"}}


def _options(exporter: str) -> ExportOptions:
    return ExportOptions(exporter=exporter, dynamic_axes=FREE)


@pytest.mark.parametrize("style", STYLES)
def test_squeeze_and_excitation_reads_one_tensor_of_integers(style: str) -> None:
    prepared = prepare(fill(SMALL["mobilenet_v3"]()), image(32, 32), QuantizationOptions(style=style))
    quantized = {choice.name for choice in prepared.choices if choice.quantized}
    for block in ("features.2.block.2", "features.3.block.2"):
        assert {f"{block}.mul0", f"{block}.avgpool.pool0"} <= quantized
        module = prepared.model.get_submodule(block)
        pooled = module.get_submodule("avgpool").get_submodule("pool0_input_quantizer")
        assert module.get_submodule("mul0_right_quantizer") is pooled
        assert module.get_submodule("mul0_left_quantizer") is not pooled


@pytest.mark.parametrize("name", ["resnet", "convnext", "densenet"])
def test_other_means_and_products_stay_as_they_are(name: str) -> None:
    prepared = prepare(fill(SMALL[name]()), image(32, 32))
    assert not [choice for choice in prepared.choices if "pool" in choice.name or "mul" in choice.name]


class _Scaled(nn.Module):
    """Factors that are written into the image's own tensor, which another layer reads before."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = self.first(x)
        factors = torch.sigmoid(self.second(states.mean((2, 3), keepdim=True)))
        states *= factors
        return self.last(states)


def test_a_product_in_place_is_rounded_once() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(4, 4, 6, 6) for _ in range(2)]
    prepared = prepare(_Scaled().eval(), batches[0])
    assert {"mul0", "pool0"} <= {choice.name for choice in prepared.choices if choice.quantized}
    model = calibrate(prepared, batches)
    with torch.no_grad():
        states = model.pool0_input_quantizer(model.first(batches[0]))
        factors = torch.sigmoid(model.second(states.mean((2, 3), keepdim=True)))
        expected = model.last(states * model.mul0_right_quantizer(factors))
        assert torch.equal(model(batches[0]), expected)


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", ["mobilenet_v3", "densenet"])
def test_the_exported_file_gives_what_the_module_gives(name: str, exporter: str, tmp_path: Path) -> None:
    batches, x = [image(32, 32, seed=seed) for seed in range(2)], image(48, 40, batch=3, seed=9)
    prepared = prepare(fill(SMALL[name]()), batches[0], QuantizationOptions(style="onnxruntime"))
    model = calibrate(prepared, batches)
    path = export(model, {"images": batches[0]}, tmp_path / "model.onnx", _options(exporter))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": x.numpy()})
    with torch.no_grad():
        expected = model(x).numpy()
    # The scores stand on a grid of 8 bits. A float sum in another order may tip a rounding before it.
    step = np.diff(np.unique(expected)).min()
    assert np.abs(found - expected).max() <= 2 * step
    graph = onnx.load(path).graph
    makers = {output: node for node in graph.node for output in node.output}
    readers = {name: node.op_type for node in graph.node for name in node.input}
    for node in graph.node:
        if node.op_type == "Conv":
            assert [makers[value].op_type for value in node.input[:2]] == ["DequantizeLinear"] * 2
        if node.op_type == "Mul":
            assert {makers[value].op_type for value in node.input} == {"DequantizeLinear"}
        if node.op_type == "BatchNormalization":
            assert readers[node.output[0]] == "Relu"


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("name", ["mobilenet_v3", "xception"])
def test_a_float_file_of_free_sizes_is_quantized_as_one_of_fixed_sizes(
    name: str, exporter: str, tmp_path: Path
) -> None:
    model, batch = fill(SMALL[name]()), image(64, 64)
    counts = []
    for axes in (FREE, {}):
        options = ExportOptions(exporter=exporter, dynamic_axes=axes)
        path = export(model, {"images": batch}, tmp_path / "model.onnx", options)
        made = quantize_onnx(path, [{"images": batch.numpy()}], QuantizationOptions(style="tensorrt"))
        counts.append(sorted(choice.kind for choice in made.choices if choice.quantized))
        assert not [choice for choice in made.choices if not choice.quantized]
    assert counts[0] == counts[1]
    assert counts[0].count("Add") == {"mobilenet_v3": 2, "xception": 4}[name]
    assert counts[0].count("Mul") == {"mobilenet_v3": 2, "xception": 0}[name]


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_a_pruned_float_network_keeps_names_and_patterns(exporter: str, tmp_path: Path) -> None:
    model = fill(SMALL["resnet"]())
    Pruner(model, "2:4").prune()
    path = export(model, {"images": image(32, 32)}, tmp_path / "model.onnx", _options(exporter))
    proto = onnx.load(path)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert np.mean(weights["layer1.0.conv1.weight"] == 0) == 0.5
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    stated = {entry.key: entry.value for entry in proto.metadata_props}
    assert stated["openwork.pattern.layer1.0.conv1.weight"] == "2:4"
    assert "openwork.pattern.conv1.weight" not in stated
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"images": image(32, 32).numpy()}
    )
    with torch.no_grad():
        expected = model(image(32, 32)).numpy()
    # Ten layers whose sums have another order, each with a few ulps of its largest value.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def test_shapes_of_factors_and_of_free_sizes() -> None:
    assert factor_for_channels((2, 8, 1, 1), (2, 8, 5, 5))
    assert factor_for_channels(("n", 8, 1, 1), ("m", 8, "h", "w"))
    assert not factor_for_channels((2, 8, 5, 5), (2, 8, 5, 5))
    assert not factor_for_channels((2, 1, 1, 1), (2, 8, 5, 5))
    assert not factor_for_channels((2, 8), (2, 8))
    assert not sizes_differ(("n", 8, "a", 4), ("m", 8, "b", 4))
    assert sizes_differ(("n", 8), (1, 8))
    assert sizes_differ((2, 8), (2, 4))
