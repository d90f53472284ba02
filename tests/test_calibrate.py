"""Calibration and conversion of small models."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from openwork.models import BertConfig, BertEncoder, SentenceEmbedder
from openwork.quantization import (
    QuantizationOptions,
    QuantLinear,
    calibrate,
    choose_layers,
    convert,
    prepare,
    quantize,
)

TINY = BertConfig(
    vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
    max_position_embeddings=32,
)  # fmt: skip


class Small(nn.Module):
    """Two layers that share an input, one behind them, and one that only runs when asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.left, self.right = nn.Linear(16, 8), nn.Linear(16, 8)
        self.last, self.rare = nn.Linear(8, 4, bias=False), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, rare: bool = False) -> torch.Tensor:
        x = self.norm(x)
        y = self.last(functional.gelu(self.left(x)) + self.right(x))
        return self.rare(y) if rare else y


def _small(seed: int = 0) -> tuple[Small, list[tuple[torch.Tensor]]]:
    torch.manual_seed(seed)
    model = Small()
    return model, [(torch.randn(6, 16),) for _ in range(8)]


def _embedder() -> tuple[SentenceEmbedder, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    batches = []
    for _ in range(4):
        ids, mask = torch.randint(1, 50, (4, 9)), torch.ones(4, 9, dtype=torch.long)
        mask[1, 5:] = 0
        batches.append((ids * mask, mask))
    return SentenceEmbedder(BertEncoder(TINY)).eval(), batches


@pytest.mark.parametrize("observer", ["output", "max", "percentile"])
@pytest.mark.parametrize("activation", ["s8", "u8"])
def test_a_quantized_model_is_close_to_the_float_one(observer: str, activation: str) -> None:
    model, batches = _embedder()
    options = QuantizationOptions(observer=observer, activation=activation)  # type: ignore[arg-type]
    quantized = quantize(model, batches, options)
    with torch.inference_mode():
        similarity = (model(*batches[0]) * quantized(*batches[0])).sum(1)
    # 12 layers, each adding at most about 1e-3 of relative error (8 bits: 1/255 of the range per step).
    assert similarity.min() > 0.99
    assert similarity.min() < 1 - 1e-7
    assert sum(isinstance(layer, QuantLinear) for layer in quantized.modules()) == 12


def test_layers_that_share_an_input_share_its_scale() -> None:
    model, batches = _embedder()
    prepared = prepare(model)
    scales = calibrate(prepared, batches)
    prefix = "encoder.encoder.layer.1.attention.self."
    assert [prefix + name for name in ("query", "key", "value")] in prepared.groups()
    query, key, value = (scales[prefix + name] for name in ("query", "key", "value"))
    assert query is key is value
    assert len(prepared.groups()) == 8


def test_padding_does_not_count() -> None:
    model, batches = _embedder()
    ids, mask = batches[0]
    other = ids.clone()
    other[mask == 0] = 7
    options = QuantizationOptions(observer="max")
    first, second = (calibrate(prepare(model, options), [(i, mask)] * 2) for i in (ids, other))
    assert first == second or all(first[n].affine == second[n].affine for n in first)
    everything = calibrate(prepare(model, options), [(other, mask)] * 2, keep=lambda batch: torch.ones(4, 9))
    assert any(everything[n].affine != first[n].affine for n in first)


def test_a_wide_channel_moves_into_the_weights_where_that_is_free() -> None:
    model, batches = _small()
    with torch.no_grad():
        model.norm.weight[3] = 60.0
    scales = calibrate(prepare(model, QuantizationOptions(exclude=("rare",))), batches)
    by = scales["left"].multiplier
    assert by is not None
    assert by.argmin() == 3
    assert scales["last"].multiplier is None, "a sum of two layers has nowhere to take a multiplier"
    plain = QuantizationOptions(exclude=("rare",), migrate=False)
    x = batches[0][0]
    model.eval()
    with torch.inference_mode():
        exact = model(x)
        moved = (convert(model, scales)(x) - exact).norm()
        unmoved = (quantize(model, batches, plain)(x) - exact).norm()
    assert moved < 0.7 * unmoved


def test_zeros_of_a_mask_stay_zeros() -> None:
    model, batches = _small()
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[:, ::2] = True
    model.left.register_buffer("weight_mask", mask)
    with torch.no_grad():
        model.left.weight.mul_(mask)
        model.norm.weight[3] = 60.0
    quantized = quantize(model, batches, QuantizationOptions(include=("left",)))
    layer = quantized.get_submodule("left")
    assert isinstance(layer, QuantLinear)
    assert not layer.quantized_weight()[~mask].any()
    assert torch.equal(layer.get_buffer("weight_mask"), mask)
    assert isinstance(model.left, nn.Linear), "the float model must be left alone"
    assert "left.weight_mask" in quantized.state_dict()


def test_choices_are_explained() -> None:
    model, _ = _embedder()
    choices = {choice.name: choice for choice in choose_layers(model, exclude=("*.key",))}
    assert choices["encoder.encoder.layer.0.attention.self.key"].reason == "excluded by '*.key'"
    assert choices["encoder.embeddings.word_embeddings"].reason == (
        "Embedding has no INT8 kernel; only Linear layers are quantized"
    )
    assert choices["encoder.encoder.layer.0.attention.self.query"].quantized
    table = prepare(model, QuantizationOptions(include=("*.query",))).table()
    assert "not included by '*.query'" in table
    with pytest.raises(
        ValueError, match=r"The glob '\*\.qurey' names no weighted layer; the layers are: encoder"
    ):
        choose_layers(model, include=("*.qurey",))
    with pytest.raises(ValueError, match="No layer is left to quantize"):
        choose_layers(model, exclude=("*",))


def test_a_layer_without_data_is_named() -> None:
    model, batches = _small()
    with pytest.raises(ValueError, match="No data reached rare in 8 calibration batches"):
        quantize(model, batches)
    with pytest.raises(ValueError, match="needs at least one batch"):
        quantize(model, [])


def test_one_batch_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model, batches = _small()
    with caplog.at_level(logging.WARNING):
        quantize(model, batches[:1], QuantizationOptions(exclude=("rare",)))
    assert "Calibration saw one batch only; ranges such as that of left may be too narrow." in caplog.text


def test_an_input_of_zeros_is_a_warning_and_works(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with caplog.at_level(logging.WARNING):
        quantized = quantize(model, [torch.zeros(2, 4)] * 2)
    assert "The input of 0 was zero throughout calibration" in caplog.text
    assert torch.allclose(quantized(torch.zeros(2, 4)), model[0].bias.expand(2, 4))


def test_nan_is_named_with_its_batch_and_hooks_are_gone() -> None:
    model, batches = _small()
    batches[3][0][1, 2] = torch.nan
    with pytest.raises(ValueError, match="Calibration batch 3: The input of left holds"):
        quantize(model, batches, QuantizationOptions(exclude=("rare",)))
    assert not any(layer._forward_pre_hooks for layer in model.modules())
    assert model.training


def test_a_broken_weight_is_named() -> None:
    model, batches = _small()
    scales = calibrate(prepare(model, QuantizationOptions(exclude=("rare",))), batches)
    with torch.no_grad():
        model.right.weight[5, 1] = torch.inf
    with pytest.raises(ValueError, match="right: output channel 5 of the weight holds NaN or infinity"):
        convert(model, scales)
    with pytest.raises(
        ValueError, match="'norm' must be a Linear of the model to be quantized, but it is LayerNorm"
    ):
        convert(model, {"norm": scales["left"]})


def test_the_model_itself_may_be_the_layer() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 4)
    quantized = quantize(layer, [torch.randn(5, 8) for _ in range(2)])
    assert isinstance(quantized, QuantLinear)
