"""Where quantizers go, and why not elsewhere."""

from __future__ import annotations

import copy
import logging
import pickle
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.parametrizations import weight_norm
from torch.overrides import TorchFunctionMode

from openwork.models import BertConfig, BertEncoder
from openwork.models.resnet import resnet34
from openwork.quantization import FakeQuantize, Prepared, QuantizationOptions, calibrate, prepare, quantize
from openwork.quantization.fake_quantization.modules import QuantConv2d, Quantized
from quant_models import Attention, Functional, InPlace, images, lively, small_resnet

TINY = BertConfig(
    vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
    max_position_embeddings=32,
)  # fmt: skip


def _rows(prepared: Prepared) -> dict[str, str]:
    """Reasons of what stays in float; INT8 for the rest."""
    return {c.name: "INT8" if c.quantized else c.reason for c in prepared.choices}


def _rounded(x: Tensor, quantizer: FakeQuantize) -> Tensor:
    scale, zero_point = quantizer.scales()
    return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero_point), *quantizer.limits)


class _Additions(TorchFunctionMode):
    """Keeps the inputs of every addition of two images' states."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        # The quantizers of weights add too; their tensors do not begin with the batch of one image.
        if name in ("add", "__add__", "add_", "__iadd__") and args[0].shape[:1] == args[1].shape[:1] == (1,):
            self.inputs.append((args[0].clone(), args[1].clone()))
        return func(*args, **(kwargs or {}))


def test_a_resnet_is_its_hand_computed_self() -> None:
    model, batches = small_resnet(), images()
    quantized = quantize(model, batches)
    block: Any = quantized.get_submodule("layer2.0")
    assert type(block).__name__ == "QuantizedBasicBlock"
    x = batches[0]
    stem = functional.relu(quantized.conv1(x))
    first: Any = quantized.get_submodule("layer1.0")
    inner = functional.relu(first.conv1(stem))
    left, right = first.conv2(inner), stem
    states = functional.relu(
        _rounded(left, first.add0_left_quantizer) + _rounded(right, first.add0_right_quantizer)
    )
    inner = functional.relu(block.conv1(states))
    left, right = block.conv2(inner), block.downsample[0](states)
    states = functional.relu(
        _rounded(left, block.add0_left_quantizer) + _rounded(right, block.add0_right_quantizer)
    )
    expected = quantized.fc(states.mean(dim=(2, 3)))
    # The mean over 16 pixels is taken in another order; its quantizer may move a tie by one step.
    torch.testing.assert_close(quantized(x), expected, rtol=0, atol=float(quantized.fc.input_quantizer.scale))
    cosine = torch.cosine_similarity(quantized(x).flatten(), model(x).flatten(), dim=0)
    assert 0.999 < cosine < 1 - 1e-7


def test_every_residual_addition_of_resnet34_has_int8_on_both_inputs() -> None:
    torch.manual_seed(0)
    model = lively(resnet34()).eval()
    prepared = prepare(model, torch.randn(1, 3, 32, 32), inplace=True)
    blocks = [m for m in prepared.model.modules() if type(m).__name__ == "QuantizedBasicBlock"]
    assert len(blocks) == 16
    for block in blocks:
        if block.downsample is None:
            assert block.add0_right_quantizer is block.conv1.input_quantizer, "the same tensor"
    calibrate(prepared, [torch.randn(1, 3, 32, 32)] * 2)
    added = _Additions()
    with torch.no_grad(), added:
        prepared.model(torch.randn(1, 3, 32, 32))
    assert len(added.inputs) == 16
    for block, inputs in zip(blocks, added.inputs, strict=True):
        for x, quantizer in zip(inputs, (block.add0_left_quantizer, block.add0_right_quantizer), strict=True):
            assert quantizer.dtype == "s8"
            integers = x / quantizer.scales()[0]
            assert (integers - integers.round()).abs().max() < 1e-4, "every value is a multiple of the scale"
            assert x.unique().numel() > 2
    assert sum(isinstance(m, QuantConv2d) for m in prepared.model.modules()) == 36
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.model.modules())
    assert sum(choice.quantized for choice in prepared.choices) == 36 + 16 + 1


def test_in_place_additions_leave_their_inputs_alone() -> None:
    torch.manual_seed(0)
    model, batches = lively(nn.Sequential(InPlace(), InPlace())).eval(), images(channels=8)
    kept = batches[0].clone()
    prepared = prepare(model, batches[0])
    assert torch.equal(prepared.model(batches[0]).isfinite(), torch.ones(4, 8, 8, 8, dtype=torch.bool))
    quantized: Any = calibrate(prepared, batches)
    assert torch.equal(batches[0], kept)
    assert quantized[0].conv1.input_quantizer is quantized[0].add0_right_quantizer
    assert quantized[1].conv1.input_quantizer is not quantized[0].conv1.input_quantizer
    first, second = quantized(batches[0]), quantized(batches[0])
    assert torch.equal(first, second)
    assert torch.equal(batches[0], kept)


def test_functions_of_parameters_are_quantized() -> None:
    torch.manual_seed(0)
    model, batches = Functional().eval(), images()
    prepared = prepare(model, batches[0])
    assert _rows(prepared) == {"conv0": "INT8", "linear0": "INT8", "matmul0": "INT8"}
    module: Any = calibrate(prepared, batches)
    x = _rounded(batches[0], module.conv0_input_quantizer)
    y = functional.conv2d(x, module.conv0_weight_quantizer(module.kernel), padding=1).relu().mean(dim=(2, 3))
    y = functional.linear(
        _rounded(y, module.linear0_input_quantizer), module.linear0_weight_quantizer(module.matrix)
    )
    y = _rounded(y * 0.5, module.matmul0_left_quantizer) @ module.matmul0_weight_quantizer(module.table)
    assert torch.equal(module(batches[0]), y)
    assert module.conv0_weight_quantizer.scale.shape == (6,)
    assert module.matmul0_weight_quantizer.scale.shape == (4,)
    assert set(model.state_dict()) <= set(module.state_dict())


def test_a_traced_forward_knows_the_mode_and_refuses_another_way() -> None:
    torch.manual_seed(0)
    batches = images()
    module = pickle.loads(pickle.dumps(quantize(Functional().eval(), batches)))
    module.train()
    assert not torch.equal(module(batches[0]), module(batches[0])), "dropout must be on"
    module.eval()
    assert torch.equal(module(batches[0]), module(batches[0]))
    assert module(images(1, batch=7)[0]).shape == (7, 4), "any batch size"
    with pytest.raises(ValueError, match="the argument 'double' of the model was False in the example"):
        module(batches[0], double=True)


def test_fused_attention_and_its_residual() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Attention(), Attention()).eval()
    batches = [torch.randn(2, 5, 16) for _ in range(3)]
    prepared = prepare(model, batches[0])
    rows = _rows(prepared)
    assert rows["0.attention0"] == rows["1.add0"] == rows["1.qkv"] == "INT8"
    quantized: Any = calibrate(prepared, batches)
    one = quantized[0]
    assert one.attention0_query_quantizer is not one.attention0_key_quantizer
    longer = torch.randn(3, 9, 16)
    assert torch.cosine_similarity(quantized(longer).flatten(), model(longer).flatten(), dim=0) > 0.995
    with pytest.raises(ValueError, match="the argument 'mask' of 0 was None"):
        one(longer, torch.zeros(9, 9))


@pytest.mark.parametrize("style", ["tensorrt", "onnxruntime"])
def test_bert_is_quantized_whole(style: Any) -> None:
    torch.manual_seed(0)
    model = BertEncoder(TINY).eval()
    batches = [
        {"input_ids": torch.randint(1, 50, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
        for _ in range(3)
    ]
    prepared = prepare(model, batches[0], QuantizationOptions(style=style))
    layer = "encoder.layer.0."
    rows = _rows(prepared)
    for name in (
        "attention.self.matmul0",
        "attention.self.matmul1",
        "attention.output.dense",
        "output.dense",
    ):
        assert rows[layer + name] == "INT8"
    for name in ("attention.output.add0", "output.add0"):
        assert rows[layer + name].startswith("goes to a LayerNorm, which runs in float")
    assert rows[layer + "attention.self.add0"].startswith("is no residual addition: the shapes [2, 3, 9, 9]")
    names = [set(group.names) for group in prepared.groups]
    reads = {layer + "attention.self." + name for name in ("query", "key", "value")}
    assert any(reads <= group for group in names)
    quantized = calibrate(prepared, batches)
    dtypes = {m.dtype for m in quantized.modules() if isinstance(m, FakeQuantize) and m.axis is None}
    assert dtypes == {"s8" if style == "tensorrt" else "u8"}
    outputs = [m for m in quantized.modules() if isinstance(m, Quantized) and m.output_quantizer is not None]
    assert bool(outputs) == (style == "onnxruntime")
    exact, found = model(**batches[0]), quantized(**batches[0])
    assert torch.cosine_similarity(exact.flatten(), found.flatten(), dim=0) > 0.999
    for mask in (torch.ones(3, 5, dtype=torch.long), torch.tensor([[1, 1, 0, 0, 0]] * 3)):
        assert quantized(torch.randint(1, 50, (3, 5)), mask).shape == (3, 5, 24)


def test_transformers_bert_is_quantized_whole() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}
    config = transformers.BertConfig(**sizes, num_attention_heads=3, max_position_embeddings=32)
    model = transformers.BertModel._from_config(config, attn_implementation="sdpa").eval()
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    batches = [{"input_ids": torch.randint(1, 50, (2, 9)), "attention_mask": mask} for _ in range(3)]
    prepared = prepare(model, batches[0])
    rows = _rows(prepared)
    sums = {name for name, row in rows.items() if row.startswith("goes to a LayerNorm")}
    assert sums == {"encoder.layer.0.attention.output.add0", "encoder.layer.0.output.add0"}
    assert {row for name, row in rows.items() if name not in sums} == {"INT8"}
    assert "encoder.layer.0.attention.self.attention0" in rows
    quantized = calibrate(prepared, batches)
    exact, found = (m(**batches[0]).last_hidden_state for m in (model, quantized))
    assert torch.cosine_similarity(exact.flatten(), found.flatten(), dim=0) > 0.999


def test_torchs_transformer_layer_is_quantized_whole() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    batches = [torch.randn(2, 5, 16) for _ in range(3)]
    prepared = prepare(model, batches[0])
    rows = _rows(prepared)
    assert {name for name, row in rows.items() if row != "INT8"} == {"add0", "add1"}
    assert rows["add0"].startswith("goes to a LayerNorm, which runs in float")
    quantized = calibrate(prepared, batches)
    with torch.no_grad():
        exact, found = model(batches[0]), quantized(batches[0])
        encoder = nn.TransformerEncoder(model, 1).eval()
        assert torch.equal(calibrate(prepare(encoder, batches[0]), batches)(batches[0]), found)
    assert 0.999 < torch.cosine_similarity(exact.flatten(), found.flatten(), dim=0) < 1 - 1e-7


def test_outputs_are_quantized_where_the_style_asks() -> None:
    model, batches = small_resnet(), images()
    prepared = prepare(model, batches[0], QuantizationOptions(style="onnxruntime"))
    quantized: Any = calibrate(prepared, batches)
    block = quantized.get_submodule("layer2.0")
    assert block.conv1.output_quantizer is None, "the ReLU behind it is the lower end of the next input"
    assert block.conv2.output_quantizer is block.add0_left_quantizer, "the same tensor"
    assert block.downsample[0].output_quantizer is block.add0_right_quantizer
    assert quantized.fc.output_quantizer.dtype == "u8"
    assert quantized.conv1.input_quantizer.zero_point > 0
    assert block.conv2.input_quantizer.zero_point == 0, "nothing is below zero after a ReLU"


def test_computed_weights_are_quantized_as_they_are_read() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4))
    cut = torch_prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    model.append(cut)
    batches = [torch.randn(5, 6) for _ in range(3)]
    model[1].lock = Lock()
    with pytest.raises(ValueError, match=r"The model cannot be copied .*prepare it with inplace=True"):
        prepare(model, batches[0])
    del model[1].lock
    with torch.no_grad():
        assert torch.equal(prepare(model, batches[0]).model(batches[0]), model(batches[0]))
    prepared = prepare(model, batches[0], inplace=True)
    assert _rows(prepared) == {"0.linear0": "INT8", "2": "INT8", "3.linear0": "INT8"}
    quantized: Any = calibrate(prepared, batches)
    x = _rounded(batches[0], quantized[0].linear0_input_quantizer)
    weight = quantized[0].linear0_weight_quantizer(quantized[0].weight)
    y = quantized[2](functional.relu(functional.linear(x, weight, quantized[0].bias)))
    rounded = quantized[3].linear0_weight_quantizer(quantized[3].weight)
    assert int((rounded == 0).sum()) >= 8
    y = functional.linear(_rounded(y, quantized[3].linear0_input_quantizer), rounded, quantized[3].bias)
    assert torch.equal(quantized(batches[0]), y)


class Odd(nn.Module):
    """What traces trip over: a product with its bias, a tuple of sizes, a type asked for, unpacked shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(8, 8) / 3), nn.Parameter(torch.randn(8))
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor, size: tuple[int, int] = (2, 2), *, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        y = torch.addmm(self.bias, x.reshape(-1, width), self.kernel).view(batch, length, width)
        if mask is not None:
            y = y + torch.finfo(y.dtype).tiny * mask
        for _ in range(size[0]):
            y = self.inner(y) + y
        return y.view(batch, *size, -1)


def test_traces_take_what_models_are_written_with() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"odd": Odd()})["odd"].eval()
    batches = [{"x": torch.randn(3, 4, 8), "mask": torch.ones(3, 4, 1)} for _ in range(3)]
    prepared = prepare(model, batches[0])
    assert _rows(prepared) == {"addmm0": "INT8", "add1": "INT8", "add2": "INT8", "inner": "INT8"} | {
        "add0": "is no residual addition: the shapes [3, 4, 8] and [3, 4, 1] differ"
    }
    quantized: Any = calibrate(prepared, batches)
    x = batches[0]["x"]
    rounded = _rounded(x, quantized.addmm0_input_quantizer).reshape(-1, 8)
    y = torch.addmm(quantized.bias, rounded, quantized.addmm0_weight_quantizer(quantized.kernel)).view(
        x.shape
    )
    inner = quantized.inner
    weight = inner.weight_quantizer(inner.weight)
    for add, read in zip(("add1", "add2"), inner.input_quantizer.each, strict=True):
        left, right = (getattr(quantized, f"{add}_{side}_quantizer") for side in ("left", "right"))
        given = functional.linear(_rounded(y, read), weight, inner.bias)
        y = _rounded(given, left) + _rounded(y, right)
    assert torch.equal(quantized(**batches[0]), y.view(3, 2, 2, -1))
    with pytest.raises(ValueError, match="the argument 'size' of the model was \\(2, 2\\) in the example"):
        quantized(x, (4, 1), mask=batches[0]["mask"])


class Refused(nn.Module):
    """What stays in float, one reason each."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.counted = Counted()

    def forward(self, x: Tensor) -> Tensor:
        x = self.kept(x)
        x = self.recurrent(x)[0]
        x = torch.einsum("blc,bmc->blm", x, x) @ x
        return self.counted(x) + x.mean(1, keepdim=True)


class Counted(nn.Module):
    """Adds residually, in a loop over a string that it makes from a tensor: nothing to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x) + x
        return y * torch.tensor(float(format(float(y.sum()), ".3f")) * 0 + 1, dtype=x.dtype).numpy().item()


def test_everything_left_in_float_has_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, x = Refused().eval(), torch.randn(2, 4, 8)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        rows = _rows(prepare(model, x))
    no_form = "has no INT8 form; only Linear, convolutions, attention products and additions have"
    assert rows["unused"] == "is never called with the example inputs"
    assert rows["recurrent"] == f"GRU {no_form}"
    assert rows["unsupported0"] == f"einsum {no_form}"
    assert rows["add0"] == "is no residual addition: the shapes [2, 4, 8] and [2, 1, 8] differ"
    assert rows["kept"] == rows["counted.inner"] == rows["matmul0"] == "INT8"
    assert "unused stays in float: is never called with the example inputs." in caplog.text


def test_overrides_choose_by_name() -> None:
    model, batches = small_resnet(), images()
    asymmetric = QuantizationOptions(activation="u8", observer="max")
    options = QuantizationOptions(overrides={"layer1.*": asymmetric, "fc": None}, exclude=("*.downsample.0",))
    prepared = prepare(model, batches[0], options)
    rows = _rows(prepared)
    assert rows["fc"] == "left in float by the override 'fc'"
    assert rows["layer2.0.downsample.0"] == "excluded by '*.downsample.0'"
    quantized: Any = calibrate(prepared, batches)
    assert type(quantized.fc) is nn.Linear
    assert quantized.layer1[0].conv1.input_quantizer.dtype == "u8"
    assert quantized.layer2[0].conv1.input_quantizer.dtype == "s8"
    with pytest.raises(ValueError, match=r"The glob 'layer9\.\*' names nothing to quantize"):
        prepare(model, batches[0], QuantizationOptions(overrides={"layer9.*": None}))


@pytest.mark.parametrize(
    "wrong", [{"style": "tensort"}, {"observer": "mean"}, {"activation": "s4"}, {"batchnorm": "drop"}]
)
def test_odd_options_are_refused(wrong: dict[str, Any]) -> None:
    ((what, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"The {what} is one of .*, but it is '{value}'"):
        QuantizationOptions(**wrong)


def test_a_prepared_model_loads_the_state_of_another() -> None:
    model, batches = small_resnet(), images()
    quantized = quantize(model, batches)
    other = prepare(small_resnet(seed=5), batches[0]).model
    other.load_state_dict(quantized.state_dict())
    assert torch.equal(other(batches[0]), quantized(batches[0]))
    for again in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert torch.equal(again(batches[0]), quantized(batches[0]))
        block: Any = again.get_submodule("layer1.0")
        assert type(block) is type(quantized.get_submodule("layer1.0"))
        assert block.conv1.input_quantizer is block.add0_right_quantizer, "sharing survives copies"


@pytest.mark.parametrize("model", [small_resnet(), Functional().eval()], ids=["resnet", "functions"])
def test_a_quantized_model_compiles_whole_for_any_batch(model: nn.Module) -> None:
    quantized = quantize(model, images())
    compiled = torch.compile(quantized, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for batch in (2, 5):
            x = images(1, batch=batch)[0]
            assert torch.equal(compiled(x), quantized(x))


def test_preparing_in_place_keeps_the_objects() -> None:
    model, batches = small_resnet(), images()
    conv, weight, block = model.conv1, model.conv1.weight, model.get_submodule("layer1.0")
    prepared = prepare(model, batches[0], inplace=True)
    assert prepared.model is model
    assert model.conv1 is conv
    assert model.conv1.weight is weight
    assert model.get_submodule("layer1.0") is block
    assert isinstance(conv, QuantConv2d)
