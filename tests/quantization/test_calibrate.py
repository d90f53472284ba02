"""Calibration and conversion of small models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from openwork.models import BertConfig, BertEncoder, SentenceEmbedder
from openwork.quantization import (
    Affine,
    Prepared,
    QuantizationOptions,
    QuantLinear,
    calibrate,
    prepare,
    quantize,
)
from openwork.quantization.observers.observer import ObserverKind

OPENWORK = QuantizationOptions(style="openwork")

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
    options = QuantizationOptions(style="openwork", observer=observer, activation=activation)  # type: ignore[arg-type]
    quantized = quantize(model, batches, options)
    with torch.inference_mode():
        similarity = (model(*batches[0]) * quantized(*batches[0])).sum(1)
    # 12 layers, each adding at most about 1e-3 of relative error (8 bits: 1/255 of the range per step).
    assert similarity.min() > 0.99
    assert similarity.min() < 1 - 1e-7
    assert sum(isinstance(layer, QuantLinear) for layer in quantized.modules()) == 12


def test_layers_that_share_an_input_share_its_quantizer() -> None:
    model, batches = _embedder()
    prepared = prepare(model, batches[0], OPENWORK)
    quantized = calibrate(prepared, batches)
    prefix = "encoder.encoder.layer.1.attention.self."
    names = [prefix + name for name in ("query", "key", "value")]
    assert names in [group.names for group in prepared.groups]
    query, key, value = (_linear(quantized, name).input_quantizer for name in names)
    assert query is key is value
    assert len(prepared.groups) == len(prepared.quantizers) == 8


def test_padding_does_not_count() -> None:
    model, batches = _embedder()
    ids, mask = batches[0]
    other = ids.clone()
    other[mask == 0] = 7
    options = QuantizationOptions(style="openwork", observer="max")
    first, second = (_scales(prepare(model, batches[0], options), [(i, mask)] * 2) for i in (ids, other))
    assert first == second
    everything = _scales(
        prepare(model, batches[0], options), [(other, mask)] * 2, keep=lambda batch: torch.ones(4, 9)
    )
    assert any(everything[n] != first[n] for n in first)


def test_a_wide_channel_moves_into_the_weights_where_that_is_free() -> None:
    model, batches = _small()
    with torch.no_grad():
        model.norm.weight[3] = 60.0
    moved = quantize(model, batches, OPENWORK)
    by = _linear(moved, "left").input_multiplier
    assert by is not None
    assert by.argmin() == 3
    assert _linear(moved, "last").input_multiplier is None, "a sum of two layers has nowhere to take it"
    unmoved = quantize(model, batches, QuantizationOptions(style="openwork", migrate=False))
    x = batches[0][0]
    model.eval()
    with torch.inference_mode():
        exact = model(x)
        error, plain = (moved(x) - exact).norm(), (unmoved(x) - exact).norm()
    assert error < 0.7 * plain


def test_zeros_of_a_mask_stay_zeros() -> None:
    model, batches = _small()
    mask = torch.zeros(8, 16, dtype=torch.bool)
    mask[:, ::2] = True
    model.left.register_buffer("weight_mask", mask)
    with torch.no_grad():
        model.left.weight.mul_(mask)
        model.norm.weight[3] = 60.0
    quantized = quantize(model, batches, QuantizationOptions(style="openwork", include=("left",)))
    layer = _linear(quantized, "left")
    assert not layer.quantized_weight()[~mask].any()
    assert torch.equal(layer.get_buffer("weight_mask"), mask)
    assert type(model.left) is nn.Linear, "the float model must be left alone"
    assert "left.weight_mask" in quantized.state_dict()
    with torch.no_grad():
        model.left.weight[2, 1] = 0.5
    with pytest.raises(ValueError, match="left: the weight at row 2, column 1 is not zero though its mask"):
        prepare(model, batches[0])


def test_choices_are_explained() -> None:
    model, batches = _embedder()
    prepared = prepare(model, batches[0], QuantizationOptions(style="openwork", exclude=("*.key",)))
    choices = {choice.name: choice for choice in prepared.choices}
    assert choices["encoder.encoder.layer.0.attention.self.key"].reason == "excluded by '*.key'"
    words = choices["encoder.embeddings.word_embeddings"]
    assert words.reason == "this style leaves embeddings in float"
    assert choices["encoder.encoder.layer.0.attention.self.query"].quantized
    table = prepare(model, batches[0], QuantizationOptions(include=("*.query",))).table()
    assert "not included by '*.query'" in table
    with pytest.raises(
        ValueError, match=r"The glob '\*\.qurey' names nothing to quantize; there is: encoder"
    ):
        prepare(model, batches[0], QuantizationOptions(include=("*.qurey",)))
    with pytest.raises(ValueError, match="Nothing is left to quantize"):
        prepare(model, batches[0], QuantizationOptions(exclude=("*",)))


def test_a_layer_without_data_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model, batches = _small()
    with pytest.raises(ValueError, match="No data reached rare in 8 calibration batches"):
        calibrate(prepare(model, (batches[0][0], True), OPENWORK), batches)
    with pytest.raises(ValueError, match="needs at least one batch"):
        quantize(model, [])
    with pytest.raises(ValueError, match="needs at least one batch"):
        calibrate(prepare(model, batches[0]), [])
    with caplog.at_level(logging.WARNING):
        prepare(model, batches[0])
    assert "rare stays in float: is never called with the example inputs" in caplog.text


def test_one_batch_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model, batches = _small()
    with caplog.at_level(logging.WARNING):
        quantize(model, batches[:1], QuantizationOptions(style="openwork", exclude=("rare",)))
    assert "Calibration saw one batch only; ranges such as that of left may be too narrow." in caplog.text


def test_an_input_of_zeros_is_a_warning_and_works(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with caplog.at_level(logging.WARNING):
        quantized = quantize(model, [torch.zeros(2, 4)] * 2)
    assert "The input of 0 was zero throughout calibration" in caplog.text
    assert torch.allclose(quantized(torch.zeros(2, 4)), model[0].bias.expand(2, 4))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_is_named_with_its_batch_and_hooks_are_gone(bad: float) -> None:
    model, batches = _small()
    prepared = prepare(model, batches[0])
    batches[3][0][1, 2] = bad
    with pytest.raises(ValueError, match="Calibration batch 3: The input of left holds"):
        calibrate(prepared, batches)
    assert not any(layer._forward_pre_hooks for layer in prepared.model.modules())
    assert prepared.model.training
    exact = model(batches[0][0])
    assert torch.equal(prepared.model(batches[0][0]), exact), "it must be left in float"


def test_a_broken_weight_is_named() -> None:
    model, batches = _small()
    with torch.no_grad():
        model.right.weight[5, 1] = torch.inf
    with pytest.raises(ValueError, match="right: output channel 5 of the weight holds NaN or infinity"):
        prepare(model, batches[0])


def test_a_prepared_model_is_not_prepared_again() -> None:
    model, batches = _small()
    with pytest.raises(ValueError, match="The model is quantized already"):
        prepare(quantize(model, batches), batches[0])


def test_the_model_itself_may_be_the_layer() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 4)
    quantized = quantize(layer, [torch.randn(5, 8) for _ in range(2)])
    assert isinstance(quantized, QuantLinear)


def test_batches_may_come_from_a_generator_once() -> None:
    model, batches = _small()
    first = quantize(model, (batch for batch in batches), OPENWORK)
    second = quantize(model, batches, OPENWORK)
    assert torch.equal(first(batches[0][0]), second(batches[0][0]))


def test_data_comes_from_arrays_loaders_and_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model, rows = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(24, 6)
    options = QuantizationOptions(observer="max")
    labelled = torch.utils.data.TensorDataset(rows, torch.arange(24))
    (tmp_path / "folder").mkdir()
    for i in range(3):
        np.save(tmp_path / "folder" / f"{i}.npy", rows[8 * i : 8 * i + 8].numpy())
    np.savez(tmp_path / "rows.npz", input=rows.numpy(), label=np.arange(24))
    sources: list[Any] = [
        [rows.numpy()[:12], rows.numpy()[12:]],
        rows,
        rows.numpy(),
        {"input": rows.numpy()},
        torch.utils.data.DataLoader(labelled, batch_size=8),
        tmp_path / "folder",
        tmp_path / "rows.npz",
    ]
    wanted = _scales(prepare(model, rows[:2], options), [rows, rows])
    with caplog.at_level(logging.WARNING):
        for source in sources:
            assert _scales(prepare(model, rows[:2], options), source) == wanted
            assert quantize(model, source, options)(rows).shape == (24, 3)
    assert "A batch holds 2 values, but the model takes 1 of them" in caplog.text


def _of_one_sign() -> dict[str, torch.Tensor]:
    rows = torch.rand(24, 16, generator=torch.Generator().manual_seed(2))
    return {
        "positive and narrow": rows * 0.2 + 2,
        "positive and very narrow": rows * 0.01 + 300,
        "negative and narrow": -280 - 20 * rows,
        "one positive value": torch.full((24, 16), 3.0),
        "one negative value": torch.full((24, 16), -3.0),
        "one value of tiny size": torch.full((24, 16), 1e-40),
    }


@pytest.mark.parametrize("data", list(_of_one_sign()))
@pytest.mark.parametrize("observer", get_args(ObserverKind))
@pytest.mark.parametrize("activation", ["u8", "s8"])
def test_data_of_one_sign_have_a_range_that_holds_zero(data: str, observer: Any, activation: Any) -> None:
    torch.manual_seed(0)
    rows = _of_one_sign()[data]
    model = nn.Sequential(nn.Linear(16, 8))
    options = QuantizationOptions(style="openwork", observer=observer, activation=activation)
    quantized = quantize(model, [rows[:12], rows[12:]], options)
    quantizer = _linear(quantized, "0").input_quantizer
    assert quantizer is not None
    affine = quantizer.affine
    assert affine.zero_point == (255 if activation == "u8" and "negative" in data else 0)
    low = affine.scale * (quantizer.limits[0] - affine.zero_point)
    high = affine.scale * (quantizer.limits[1] - affine.zero_point)
    # Such data are far from 0, so nothing but their own size is near them: a range without it clips them all.
    # Entropy counts bins and not distances, so it may clip a narrow range to its lower end, 10% here.
    if "tiny" not in data:
        held = rows.clamp(low, high)
        assert (held - rows).abs().max() <= (0.1 if observer == "entropy" else 0.01) * rows.abs().max()


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_one_value_is_at_the_end_of_its_range(value: float) -> None:
    torch.manual_seed(0)
    rows = torch.full((24, 16), value)
    quantized = quantize(nn.Sequential(nn.Linear(16, 8)), [rows[:12], rows[12:]], OPENWORK)
    quantizer = _linear(quantized, "0").input_quantizer
    assert quantizer is not None
    assert quantizer.affine == Affine(float(np.float32(3 / 255)), 0 if value > 0 else 255, "u8")


def test_a_data_file_that_holds_no_arrays_is_refused(tmp_path: Path) -> None:
    model, _ = _small()
    (tmp_path / "text.npz").write_text("1, 2, 3")
    for name, match in (
        ("text.npz", "text.npz holds no arrays that NumPy can read: it is neither a .npy nor a .npz file"),
        ("none.npz", "none.npz, but there is no such file or folder; give the path of a .npy or .npz file"),
    ):
        with pytest.raises(ValueError, match=match):
            quantize(model, tmp_path / name, OPENWORK)


def _linear(model: nn.Module, name: str) -> QuantLinear:
    layer = model.get_submodule(name)
    assert isinstance(layer, QuantLinear)
    return layer


def _scales(prepared: Prepared, batches: Any, **more: Any) -> dict[str, Affine]:
    calibrate(prepared, batches, **more)
    return {name: quantizer.affine for name, quantizer in prepared.quantizers.items()}
