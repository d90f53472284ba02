"""Every kind of layer with its quantizers, exported both ways, against ONNX Runtime.

Models stand on the exact grid (`benchmarks/export_agreement/exact_grid.py`), where right engines agree to the
bit; so agreement is asserted as equality wherever the graph holds sums and products only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from benchmarks.export_agreement.exact_grid import move_to_exact_grid
from torch import Tensor, nn

from openwork.export import ExportOptions, export
from openwork.export.options import Exporter
from openwork.quantization import FakeQuantize, FakeQuantizeOptions, QuantizationOptions, quantize
from openwork.quantization.fake_quantization.modules import QuantConv2d, QuantLinear, quantize_layer
from openwork.sparsity import Pattern
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.masks.view import WeightView

EXPORTERS: tuple[Exporter, ...] = ("dynamo", "legacy")
OPTIMIZATIONS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "on": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class Convolutions(nn.Module):
    """All dimensions, groups, transposed and not, with a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(4, 8, 3, padding=1)
        self.one_up = nn.ConvTranspose1d(8, 4, 2, stride=2)
        self.two = nn.Conv2d(2, 8, 2, groups=2, bias=False)
        self.two_up = nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)
        self.three = nn.Conv3d(3, 5, 2)
        self.three_up = nn.ConvTranspose3d(5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        y = self.one_up(y + torch.relu(y))
        y = self.two_up(self.two(y.unflatten(1, (2, 2))))
        return self.three_up(self.three(y.unflatten(1, (3, 2))))


class Tokens(nn.Module):
    """An embedding, a linear layer on three dimensions, products of activations, a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 16)
        self.mix = nn.Linear(16, 24)
        self.head = nn.Linear(24, 3, bias=False)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.mix(self.words(input_ids))
        scores = torch.matmul(x, x.transpose(1, 2))
        mixed = torch.matmul(scores, x)
        return self.head(mixed.sum(1)), scores


def quantized(
    model: nn.Module, example: Tensor, style: str = "tensorrt", exact: bool = True, **options: object
) -> nn.Module:
    """The model calibrated on three batches like `example`, on the exact grid."""
    torch.manual_seed(0)
    batches = [example] * 2 if example.dtype == torch.int64 else [example, 0.7 * example, -example]
    made = quantize(model.eval(), batches, QuantizationOptions(style=style, observer="max", **options))  # type: ignore[arg-type]
    if exact:
        move_to_exact_grid(made)
    return made


def run(
    path: Path, inputs: Mapping[str, Tensor], optimizations: str, saved: Path | None = None
) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = OPTIMIZATIONS[optimizations]
    if saved:
        options.optimized_model_filepath = str(saved)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 1)


def convolutions() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return quantized(Convolutions(), torch.randn(3, 4, 6)), torch.randn(5, 4, 6)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_convolutions_agree_to_the_bit(tmp_path: Path, exporter: Exporter) -> None:
    model, x = convolutions()
    path = export(
        model, {"x": x[:2]}, tmp_path / "m.onnx", ExportOptions(exporter=exporter, target="tensorrt")
    )
    with torch.inference_mode():
        expected = model(x).numpy()
    for optimizations in OPTIMIZATIONS:
        assert np.array_equal(run(path, {"x": x}, optimizations)[0], expected), optimizations
    graph = onnx.load(path).graph
    made = makers(graph)
    for node in (node for node in graph.node if "Conv" in node.op_type):
        weight = made[node.input[1]]
        assert weight.op_type == made[node.input[0]].op_type == "DequantizeLinear"
        assert axis(weight) == (1 if node.op_type == "ConvTranspose" else 0)
        assert tensors(path)[weight.input[0]].dtype == np.int8
    add = next(node for node in graph.node if node.op_type == "Add")
    assert [made[name].op_type for name in add.input] == ["DequantizeLinear"] * 2


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_linear_layers_products_and_embeddings(tmp_path: Path, exporter: Exporter) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 11, (2, 5))
    model = quantized(Tokens(), ids)
    options = ExportOptions(exporter=exporter, target="tensorrt", output_names=("head", "scores"))
    path = export(model, {"input_ids": ids}, tmp_path / "m.onnx", options)
    longer = torch.randint(0, 11, (3, 9))
    with torch.inference_mode():
        expected = model(longer)
    for optimizations in OPTIMIZATIONS:
        for found, wanted in zip(run(path, {"input_ids": longer}, optimizations), expected, strict=True):
            assert np.array_equal(found, wanted.numpy()), optimizations
    proto = onnx.load(path)
    made = makers(proto.graph)
    products = [node for node in proto.graph.node if node.op_type == "MatMul"]
    assert len(products) == 4
    for node in products:
        operand = made[node.input[1]]
        operand = made[operand.input[0]] if operand.op_type == "Transpose" else operand
        assert (made[node.input[0]].op_type, operand.op_type) == ("DequantizeLinear", "DequantizeLinear")
    assert tensors(path)["mix.weight"].shape == (16, 24)
    assert tensors(path)["mix.weight"].dtype == np.int8
    assert axis(made[products[0].input[1]]) == 1
    assert [output.name for output in proto.graph.output] == ["head", "scores"]


def test_both_exporters_store_the_same(tmp_path: Path) -> None:
    model, x = convolutions()
    made = {
        name: tensors(export(model, {"x": x[:2]}, tmp_path / f"{name}.onnx", ExportOptions(exporter=name)))
        for name in EXPORTERS
    }
    integers = {name for name in made["dynamo"] if name.endswith((".weight", "scale"))}
    assert len(integers) >= 15
    assert integers == {name for name in made["legacy"] if name.endswith((".weight", "scale"))}
    for name in integers:
        assert made["dynamo"][name].dtype == made["legacy"][name].dtype
        assert np.array_equal(made["dynamo"][name], made["legacy"][name]), name


@pytest.mark.parametrize("opset", [18, 20])
def test_opsets(tmp_path: Path, opset: int) -> None:
    model, x = convolutions()
    options = ExportOptions(exporter="legacy", opset=opset)
    path = export(model, {"x": x[:2]}, tmp_path / "m.onnx", options)
    assert onnx.load(path).opset_import[0].version == opset
    assert np.array_equal(run(path, {"x": x}, "on")[0], model(x).detach().numpy())
    for exporter, most in (("dynamo", 23), ("legacy", 20)):
        for unsupported in (17, most + 1):
            sentence = (
                rf"{exporter} exporter writes opsets 18 to {most} here, but opset {unsupported} was asked"
            )
            with pytest.raises(ValueError, match=sentence):
                ExportOptions(exporter=exporter, opset=unsupported)  # type: ignore[arg-type]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_multihead_attention_holds_its_integers(tmp_path: Path, exporter: Exporter) -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    x = torch.randn(3, 7, 16)
    float_model = Attend()
    attention = float_model.attention
    mask = best_mask(attention.in_proj_weight.detach().abs(), Pattern.parse("2:4"))
    attention.register_buffer("in_proj_weight_mask", mask)
    attention.in_proj_weight.data *= attention.in_proj_weight_mask
    model = quantized(float_model, x, exact=False)
    options = ExportOptions(exporter=exporter, dynamic_axes={"x": {0: "batch"}})
    path = export(model, {"x": x}, tmp_path / "m.onnx", options)
    proto, stored = onnx.load(path), tensors(path)
    found = np.concatenate([stored[f"attention.in_proj_weight.{i}"].T for i in range(3)])
    quantizer = model.attention.in_proj_quantizer
    weight = quantizer.integers(model.attention.in_proj_weight.detach()).numpy()
    assert np.array_equal(found, weight)
    assert not weight[~model.attention.in_proj_weight_mask.numpy()].any()
    recorded = {p.key: p.value for p in proto.metadata_props}
    assert recorded == {f"openwork.pattern.attention.in_proj_weight.{i}": "2:4" for i in range(3)}
    made = makers(proto.graph)
    for node in (node for node in proto.graph.node if node.op_type == "MatMul"):
        operands = [made[name] for name in node.input]
        operands = [made[n.input[0]] if n.op_type == "Transpose" else n for n in operands]
        assert [n.op_type for n in operands] == ["DequantizeLinear"] * 2, node.name
    with torch.inference_mode():
        expected = model(x).flatten()
    for optimizations in OPTIMIZATIONS:
        made = torch.from_numpy(run(path, {"x": x}, optimizations)[0]).flatten()
        # A softmax lies between the roundings, so single ones may fall to the other side.
        assert torch.cosine_similarity(made, expected, dim=0) > 0.9999


def residual_network(pattern: str | None = None) -> tuple[nn.Module, Tensor]:
    from openwork.models.resnet import small_resnet

    torch.manual_seed(0)
    model = small_resnet(widths=(8, 16)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            module.running_mean.normal_(0, 0.1)
    if pattern:
        prune(model, pattern)
    return model, torch.randn(4, 1, 8, 8)


def prune(model: nn.Module, pattern: str) -> None:
    for module in model.modules():
        view = WeightView.of(module)
        if view is not None and view.stacked[2] % 4 == 0:
            scores = view.matrices(module.weight.detach().abs())
            module.register_buffer("weight_mask", view.restore(best_mask(scores, Pattern.parse(pattern))))
            module.weight.data *= module.weight_mask


@pytest.mark.parametrize("style", ["tensorrt", "onnxruntime"])
def test_every_residual_sum_reads_integers(tmp_path: Path, style: str) -> None:
    float_model, x = residual_network()
    model = quantized(float_model, x, style)
    options = ExportOptions(exporter="legacy", target=style)  # type: ignore[arg-type]
    graph = onnx.load(export(model, {"images": x}, tmp_path / "m.onnx", options)).graph
    made, stored = makers(graph), {t.name for t in graph.initializer}
    sums = [node for node in graph.node if node.op_type == "Add" and not stored & set(node.input)]
    assert len(sums) >= 2
    for node in sums:
        assert [made[name].op_type for name in node.input] == ["DequantizeLinear"] * 2, node.name


def test_onnx_runtime_runs_its_dialect_in_integers(tmp_path: Path) -> None:
    float_model, x = residual_network()
    model = quantized(float_model, x, "onnxruntime")
    path = export(
        model, {"images": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy", target="onnxruntime")
    )
    run(path, {"images": x}, "on", tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    convolutions = sum(isinstance(module, QuantConv2d) for module in model.modules())
    assert kinds.count("QLinearConv") == convolutions
    assert "Conv" not in kinds
    assert "FusedConv" not in kinds


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_pruned_convolutions_keep_their_pattern_in_the_integers(tmp_path: Path, exporter: Exporter) -> None:
    float_model, x = residual_network("2:4")
    model = quantized(float_model, x, exact=False)
    path = export(model, {"images": x}, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
    recorded = {p.key.removeprefix("openwork.pattern."): p.value for p in onnx.load(path).metadata_props}
    masked = {n for n, m in model.named_modules() if isinstance(getattr(m, "weight_mask", None), Tensor)}
    assert set(recorded) == {f"{name}.weight" for name in masked}
    assert set(recorded.values()) == {"2:4"}
    stored = tensors(path)
    for name in masked:
        module = model.get_submodule(name)
        weight = stored[f"{name}.weight"].T if isinstance(module, QuantLinear) else stored[f"{name}.weight"]
        assert weight.dtype == np.int8
        assert not weight[~module.weight_mask.numpy()].any()
        stack = WeightView.of(module).matrices(torch.from_numpy(weight.copy())).numpy()
        assert not Pattern.parse("2:4").violations(stack)


def test_a_convolution_that_breaks_its_pattern_is_refused(tmp_path: Path) -> None:
    """Kernel taps and groups are looked at one by one: [out, in, kh, kw] read as one matrix would pass."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 4, 3, groups=2)
    prune(nn.Sequential(layer), "2:4")
    model = quantized(nn.Sequential(layer), torch.randn(2, 8, 5, 5))
    fine = ExportOptions(exporter="legacy", patterns={"0": "2:4"})
    export(model, {"input": torch.randn(2, 8, 5, 5)}, tmp_path / "m.onnx", fine)
    broken = ExportOptions(exporter="legacy", patterns={"0": "1:4"})
    with pytest.raises(
        ValueError, match=r"0: the exported weight breaks its pattern 1:4: .*row 0, group 0: 2 non"
    ):
        export(model, {"input": torch.randn(2, 8, 5, 5)}, tmp_path / "broken.onnx", broken)
    assert not (tmp_path / "broken.onnx").exists()


def test_batch_norms_fold_into_the_scales(tmp_path: Path) -> None:
    """Kept in the module, folded in the file: negative and zero factors, a mask, a transposed convolution."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4),
    )  # fmt: skip
    for norm in (model[1], model[4]):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2.0)
    model[1].weight.data[3] = 0.0
    prune(model, "2:4")
    x = torch.randn(3, 4, 6, 6)
    made = quantized(model, x, exact=False, batchnorm="keep")
    path = export(
        made, {"input": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy", target="tensorrt")
    )
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert "BatchNormalization" not in kinds
    factor = model[1].weight / torch.sqrt(model[1].running_var + model[1].eps)
    unfolded = made[0].quantized_weight().numpy()
    sign = np.sign(factor.detach().numpy())[:, None, None, None]
    assert np.array_equal(tensors(path)["0.weight"], unfolded * sign)
    with torch.inference_mode():
        expected = made(x).numpy()
    found = run(path, {"input": x}, "off")[0]
    # The fold rounds scale and bias once more: a few parts in 2^24 of what is summed; one rounding may turn.
    step = float(made[3].input_quantizer.scales()[0]) * float(np.abs(expected).max())
    assert np.abs(found - expected).max() < 1e-5 + step


def test_symmetric_integers_are_written_for_onnx_runtime_as_they_are(tmp_path: Path) -> None:
    model, x = convolutions()
    options = ExportOptions(exporter="legacy", target="onnxruntime")
    path = export(model, {"x": x[:2]}, tmp_path / "m.onnx", options)
    stored = tensors(path)
    graph = onnx.load(path).graph
    zero_points = [stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {(z.dtype.name, int(z)) for z in zero_points} == {("uint8", 128)}
    assert np.array_equal(run(path, {"x": x}, "on")[0], model(x).detach().numpy())


def test_biases_are_stored_in_units_of_the_products(tmp_path: Path) -> None:
    float_model, x = residual_network()
    model = quantized(float_model, x, "onnxruntime", exact=False)
    path = export(
        model, {"images": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy", target="onnxruntime")
    )
    stored = tensors(path)
    biases = {name.partition("/")[0]: name for name in stored if name.endswith(":bias_integers")}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, QuantConv2d)}
    assert set(biases) == set(layers)
    for name, layer in layers.items():
        unit = layer.input_quantizer.scales()[0] * layer.weight_quantizer.scales(layer.migrated_weight())[0]
        integers, scale = stored[biases[name]], stored[biases[name].replace("integers", "scale")]
        assert integers.dtype == np.int32
        assert np.array_equal(scale, unit.numpy())
        off = np.abs(integers * scale.astype(np.float64) - layer.bias.detach().numpy())
        assert (off <= 0.5000001 * scale).all()
    floating = ExportOptions(exporter="legacy", target="onnxruntime", bias="float")
    kept = tensors(export(model, {"images": x}, tmp_path / "float.onnx", floating))
    assert not any("bias_integers" in name for name in kept)
    with pytest.raises(ValueError, match="TensorRT wants the bias as floats"):
        ExportOptions(target="tensorrt", bias="int32")


def test_an_asymmetric_model_is_refused_for_tensorrt(tmp_path: Path) -> None:
    float_model, x = residual_network()
    model = quantized(float_model, x, "onnxruntime")
    options = ExportOptions(exporter="legacy", target="tensorrt")
    sentence = (
        r"cannot be written for TensorRT.*conv1.input_quantizer/QuantizeLinear is u8 with the zero point \d+ "
        ".*Calibrate it with s8"
    )
    with pytest.raises(ValueError, match=sentence):
        export(model, {"images": x}, tmp_path / "m.onnx", options)
    assert list(tmp_path.iterdir()) == []


def one_layer(options: FakeQuantizeOptions | None = None) -> tuple[QuantLinear, Tensor]:
    torch.manual_seed(0)
    layer = quantize_layer(nn.Linear(8, 4), "linear")
    assert isinstance(layer, QuantLinear)
    layer.input_quantizer = FakeQuantize("linear", options or FakeQuantizeOptions())
    layer.input_quantizer.load_ranges(-1.0, 1.0)
    layer.input_quantizer.quantize()
    return layer.eval(), torch.randn(3, 8)


def test_a_quantizer_without_a_scale_is_refused(tmp_path: Path) -> None:
    layer, x = one_layer()
    assert layer.input_quantizer is not None
    layer.input_quantizer.observe("max")
    with pytest.raises(
        ValueError, match=r"The quantizer input_quantizer has no scale yet \(its mode is 'observing'\)"
    ):
        export(layer, {"input": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy"))


def test_a_disabled_quantizer_is_float_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer, x = one_layer()
    for quantizer in (layer.input_quantizer, layer.weight_quantizer):
        assert quantizer is not None
        quantizer.disable()
    with caplog.at_level(logging.WARNING):
        path = export(layer, {"input": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy"))
    assert (
        "Exported in float, because their quantizers are disabled: weight_quantizer, input_quantizer"
        in caplog.text
    )
    assert {node.op_type for node in onnx.load(path).graph.node} == {"MatMul", "Add"}
    assert np.allclose(run(path, {"input": x}, "on")[0], layer(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_range_without_the_lowest_integer_is_clipped(tmp_path: Path) -> None:
    layer, x = one_layer(FakeQuantizeOptions(gradient="amax"))
    move_to_exact_grid(layer)
    x = 4 * x
    path = export(layer, {"input": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy"))
    for optimizations in OPTIMIZATIONS:
        assert np.array_equal(run(path, {"input": x}, optimizations)[0], layer(x).detach().numpy())
    assert "Clip" in {node.op_type for node in onnx.load(path).graph.node}


def test_a_second_rounding_to_the_same_grid_is_dropped(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("first", "second", "other"):
                quantizer = FakeQuantize.for_activation(name, "s8")
                quantizer.load_ranges(-1.0, 2.0 if name == "other" else 1.0)
                quantizer.quantize()
                setattr(self, name, quantizer)

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.second(self.first(x))) + 1

    x = torch.randn(2, 5)
    path = export(Twice(), {"x": x}, tmp_path / "m.onnx", ExportOptions(exporter="legacy"))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert np.array_equal(run(path, {"x": x}, "off")[0], Twice()(x).numpy())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (partial(ExportOptions, exporter="jit"), 'An exporter is "dynamo" or "legacy", but it is \'jit\''),
        (
            partial(ExportOptions, target="openvino"),
            "A target is 'tensorrt' or 'onnxruntime', but it is 'openvino'",
        ),
        (partial(ExportOptions, bias="int8"), 'A bias is stored as "float" or "int32", but not as \'int8\''),
    ],
)
def test_options_that_do_not_exist(options: partial[ExportOptions], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        options()


def test_bad_examples_are_refused(tmp_path: Path) -> None:
    layer, x = one_layer()
    with pytest.raises(ValueError, match="An export needs an example of every input"):
        export(layer, {}, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="dynamic_axes names the input y, of which there is no example"):
        export(layer, {"input": x}, tmp_path / "m.onnx", ExportOptions(dynamic_axes={"y": {0: "batch"}}))
    named = ExportOptions(exporter="legacy", output_names=("a", "b"))
    with pytest.raises(ValueError, match="The model has 1 outputs, but 2 names were given for them: a, b"):
        export(layer, {"input": x}, tmp_path / "m.onnx", named)
    fixed = ExportOptions(exporter="legacy", dynamic_axes={})
    path = export(layer, {"input": x[:1]}, tmp_path / "fixed.onnx", fixed)
    assert [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim] == [1, 8]
