"""Quantized layers against products of operands that torch itself rounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.quantization import FakeQuantize, QuantizationOptions, calibrate, prepare, quantize
from openwork.quantization.fake_quantization.modules import (
    QUANTIZED,
    QuantEmbedding,
    Quantized,
    masked,
    quantize_layer,
)
from openwork.quantization.fake_quantization.multihead import QuantMultiheadAttention

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(6, 8), (3, 5, 6)),
    "linear without bias": (nn.Linear(6, 8, bias=False), (5, 6)),
    "conv1d, circular": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9)),
    "conv2d, grouped, strided": (nn.Conv2d(4, 6, 3, stride=2, groups=2), (2, 4, 9, 9)),
    "conv3d": (nn.Conv3d(2, 4, 2), (2, 2, 5, 5, 5)),
    "transposed 1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 9)),
    "transposed 2d, grouped": (nn.ConvTranspose2d(4, 6, 3, 2, groups=2, output_padding=1), (2, 4, 5, 5)),
    "transposed 3d": (nn.ConvTranspose3d(2, 4, 2), (2, 2, 3, 3, 3)),
}  # fmt: skip


def _batches(shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def _by_hand(layer: nn.Module, batches: list[Tensor], x: Tensor) -> Tensor:
    """The float layer on operands that torch rounds: max ranges, s8, weights per channel."""
    axis = 1 if "Transpose" in type(layer).__name__ else 0
    others = [d for d in range(layer.weight.dim()) if d != axis]
    scales = layer.weight.detach().abs().amax(others) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    step = torch.stack([batch.abs().max() for batch in batches]).max() / 127
    rounded = torch.fake_quantize_per_tensor_affine(x, float(step), 0, -128, 127)
    weight = torch.fake_quantize_per_channel_affine(layer.weight, scales, zeros, axis, -127, 127)
    return torch.func.functional_call(layer, {"weight": weight}, (rounded,))


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_the_float_one_on_rounded_operands(kind: str) -> None:
    torch.manual_seed(0)
    layer, shape = LAYERS[kind]
    batches = _batches(shape)
    model = nn.Sequential(layer)
    quantized = quantize(model, batches, QuantizationOptions(observer="max"))
    assert isinstance(quantized[0], Quantized)
    assert isinstance(quantized[0], type(layer)), "a pruner must recognize it"
    x = torch.randn(shape) * 2
    assert torch.equal(quantized(x), _by_hand(layer, batches, x))
    assert not torch.equal(quantized(x), model(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_keys_and_integers(kind: str) -> None:
    layer, shape = LAYERS[kind]
    quantized = quantize(nn.Sequential(layer), _batches(shape))
    state = quantized.state_dict()
    assert torch.equal(state["0.weight"], layer.weight)
    weight = quantized[0].quantized_weight()
    assert weight.dtype == torch.int8
    assert int(weight.abs().max()) == 127
    assert weight.shape == layer.weight.shape
    assert set(layer.state_dict()) <= {key.removeprefix("0.") for key in state}


def test_a_transposed_convolution_takes_an_output_size() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2)
    x = torch.randn(1, 2, 4, 4)
    quantized = quantize(nn.Sequential(layer), [x, x])[0]
    assert quantized(x, output_size=[10, 10]).shape == layer(x, output_size=[10, 10]).shape


def test_every_layer_has_a_quantized_class() -> None:
    assert all(issubclass(quantized, cls) for cls, quantized in QUANTIZED.items())
    with pytest.raises(ValueError, match=r"x must be a float Linear, Conv or ConvTranspose layer.*LayerNorm"):
        quantize_layer(nn.LayerNorm(4), "x")


def test_a_mask_is_enforced_exactly_and_lets_the_gradient_through() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 8)
    mask = torch.rand(8, 64) > 0.5
    layer.register_buffer("weight_mask", mask)
    with torch.no_grad():
        layer.weight.mul_(mask)
    quantized = quantize(nn.Sequential(layer), [torch.randn(4, 64) for _ in range(2)])[0]
    with torch.no_grad():
        quantized.weight.add_(0.01)
    seen = masked(quantized, "weight")
    assert torch.equal(seen[mask], quantized.weight[mask])
    assert not seen[~mask].any()
    assert not quantized.quantized_weight()[~mask].any()
    quantized(torch.randn(4, 64)).sum().backward()
    assert quantized.weight.grad[~mask].any()


def test_an_embedding_is_rounded_behind() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 4))
    ids = [torch.randint(0, 10, (3, 5)) for _ in range(3)]
    quantized = quantize(model, ids, QuantizationOptions(observer="max"))
    assert isinstance(quantized[0], QuantEmbedding)
    assert quantized[0].output_quantizer is quantized[1].input_quantizer, "the same tensor"
    step = max(float(model[0](batch).detach().abs().max()) for batch in ids) / 127
    expected = torch.fake_quantize_per_tensor_affine(model[0](ids[0]), step, 0, -128, 127)
    torch.testing.assert_close(quantized[0](ids[0]), expected, rtol=2.0**-22, atol=0)


MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "padding": {"key_padding_mask": torch.tensor([[False, False, True]] * 2)},
    "boolean": {"attn_mask": torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)},
    "causal": {"attn_mask": nn.Transformer.generate_square_subsequent_mask(3), "is_causal": True},
    "per head": {"attn_mask": torch.randn(8, 3, 3)},
    "both": {"attn_mask": torch.randn(3, 3), "key_padding_mask": torch.tensor([[0.0, 1.0, 0.0]] * 2)},
    "no weights": {"need_weights": False},
    "each head's weights": {"average_attn_weights": False},
}  # fmt: skip


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("first", [True, False])
def test_attention_written_out_is_torchs(masks: str, first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 4, batch_first=first).eval()
    shape = (2, 3, 8) if first else (3, 2, 8)
    inputs = tuple(torch.randn(shape) for _ in range(3))
    example = dict(zip(("query", "key", "value"), inputs, strict=True)) | MASKS[masks]
    prepared = prepare(layer, example)
    exact, found = layer(**example), prepared.model(**example)
    # Sums of 8 and of 3 products, three in a row, in another order: 64 units of 2^-24 leave room.
    torch.testing.assert_close(found, exact, rtol=64 * 2.0**-24, atol=64 * 2.0**-24)
    quantized = calibrate(prepared, [example] * 2)
    torch.testing.assert_close(quantized(**example)[0], exact[0], rtol=0.05, atol=0.05)
    assert not torch.equal(quantized(**example)[0], exact[0])


def test_attention_shares_and_counts_its_quantizers() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 4, batch_first=True).eval()
    mask = torch.zeros(24, 8, dtype=torch.bool)
    mask[:, ::2] = True
    layer.register_buffer("in_proj_weight_mask", mask)
    with torch.no_grad():
        layer.in_proj_weight.mul_(mask)
    x = torch.randn(2, 3, 8)
    prepared = prepare(layer, (x, x, x))
    model = calibrate(prepared, [(x, x, x)] * 2)
    assert isinstance(model, QuantMultiheadAttention)
    assert model.input_quantizer is model.key_input_quantizer is model.value_input_quantizer
    assert len(prepared.groups) == 6
    assert set(layer.state_dict()) <= set(model.state_dict())
    assert not model.in_proj_quantizer.integers(model.in_proj_weight)[~mask].any()
    unbatched = model(x[0], x[0], x[0])
    torch.testing.assert_close(unbatched[0], model(x, x, x)[0][0], rtol=1e-5, atol=1e-6)


def test_attention_that_is_not_supported_says_why(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8)
    model = nn.MultiheadAttention(8, 4, add_bias_kv=True)
    with pytest.raises(ValueError, match="it adds a key of its own"):
        prepare(model, (x, x, x))
    model = nn.MultiheadAttention(8, 4, kdim=6)
    with pytest.raises(ValueError, match="keys or values have a width of their own"):
        prepare(model, (x, torch.randn(2, 3, 6), x))


def test_quantizers_of_activations_are_off_until_calibration() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    prepared = prepare(nn.Linear(4, 3), x)
    assert all(m.mode == "disabled" for m in prepared.model.modules() if isinstance(m, FakeQuantize))
    calibrate(prepared, [x, x])
    assert all(m.mode == "quantizing" for m in prepared.model.modules() if isinstance(m, FakeQuantize))


def test_gradients_are_those_of_rounded_operands() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    batches = _batches((4, 5))
    quantized = quantize(nn.Sequential(layer), batches, QuantizationOptions(observer="max"))
    x = batches[0].clone().requires_grad_()
    quantized(x).square().sum().backward()
    step = torch.stack([b.abs().max() for b in batches]).max() / 127
    y = batches[0].clone().requires_grad_()
    rounded = torch.fake_quantize_per_tensor_affine(y, float(step), 0, -128, 127)
    scales = layer.weight.detach().abs().amax(1) / 127
    zeros = torch.zeros(3, dtype=torch.int32)
    weight = torch.fake_quantize_per_channel_affine(layer.weight, scales, zeros, 0, -127, 127)
    functional.linear(rounded, weight, layer.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=0)
    torch.testing.assert_close(quantized[0].weight.grad, layer.weight.grad, rtol=0, atol=0)
