"""Decoders with caches, as either exporter writes them: native throughout, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

import openwork
from openwork.export import ExportOptions, export
from openwork.models.transformer import (
    GPT,
    TransformerConfig,
    TransformerDecoder,
    TransformerEncoder,
    cache_axes,
)
from openwork.quantization.float_onnx import quantize_onnx

Arrays = dict[str, NDArray[Any]]
SIZES: dict[str, Any] = {
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
}
KINDS = {
    "gpt": TransformerConfig(**SIZES, activation="gelu"),
    "post-norm": TransformerConfig(**SIZES, pre_norm=False),
    "translator": TransformerConfig(**SIZES),
}
TOKENS = 20
# Attention in fixed point moves a value by some 1e-5 of the largest, in two layers of at most two; logits of
# words tied to the embeddings are below 8.
NEAR = 8 * 4 * 3e-5


def source(batch: int, seed: int = 0) -> Arrays:
    """Encoded sources of different lengths, as a decoder reads them."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(7) < 7 - np.arange(batch)[:, None] % 5).astype(np.int64)
    states = rng.standard_normal((batch, 7, SIZES["hidden_size"])).astype(np.float32)
    return {"encoder_states": states, "encoder_mask": mask}


def empty(kind: str, batch: int) -> Arrays:
    return {name: array.numpy() for name, array in KINDS[kind].empty_past(batch).items()}


def exported(kind: str, exporter: str, path: Path) -> Path:
    torch.manual_seed(0)
    config = KINDS[kind]
    model = (TransformerDecoder if kind == "translator" else GPT)(config).eval()
    past = config.empty_past(2, 5)
    others = {k: torch.tensor(v) for k, v in source(2).items()} if kind == "translator" else {}
    inputs = {"input_ids": torch.randint(0, 90, (2, 3)), **others, **past}
    options = ExportOptions(
        output_names=("logits", *(name.replace("past", "present") for name in past)),
        dynamic_axes=cache_axes(inputs),
        limits={"length": 16, "past": 48},
        exporter=exporter,  # type: ignore[arg-type]
    )
    return export(model, inputs, path, options)


class Beside:
    """An engine and ONNX Runtime, each with a cache of its own, writing the same text."""

    def __init__(self, model: Path, kind: str, batch: int) -> None:
        engine = model.with_suffix(".engine")
        report = openwork.build(model, engine, threads=2, progress=False)
        assert not report.fallbacks
        self.engine = openwork.load(engine, threads=2)
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.names = [port.name for port in self.session.get_outputs()]
        self.others = source(batch, 1) if kind == "translator" else {}
        self.caches = [empty(kind, batch), empty(kind, batch)]

    def read(self, ids: NDArray[Any]) -> list[Arrays]:
        """The outputs of both for the next tokens."""
        feeds = [{"input_ids": ids, **self.others, **cache} for cache in self.caches]
        made = [
            self.engine.run(feeds[0]),
            dict(zip(self.names, self.session.run(None, feeds[1]), strict=True)),
        ]
        self.caches = [
            {name.replace("present", "past"): array for name, array in each.items() if name != "logits"}
            for each in made
        ]
        return made


def prompt(batch: int) -> NDArray[np.int64]:
    return np.random.default_rng(batch).integers(0, 90, (batch, 3))


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_written_with_a_growing_cache(kind: str, exporter: str, batch: int, tmp_path: Path) -> None:
    both = Beside(exported(kind, exporter, tmp_path / "model.onnx"), kind, batch)
    ids = prompt(batch)
    for step in range(TOKENS):
        ours, theirs = both.read(ids)
        assert ours["present_key_0"].shape == (batch, 3, 3 + step, 16)
        for name, array in theirs.items():
            assert np.abs(ours[name] - array).max() < NEAR, (step, name)
        ids = theirs["logits"][:, -1:].argmax(-1)


@pytest.mark.parametrize("kind", ["gpt", "translator"])
def test_a_quantized_decoder(kind: str, tmp_path: Path) -> None:
    """INT8 linear layers: a step of one quantizer where a number lies at a tie, and no more."""
    model, quantized = exported(kind, "dynamo", tmp_path / "model.onnx"), tmp_path / "int8.onnx"
    plain = Beside(model, kind, 2)
    feeds = []
    for seed in range(4):
        ids = np.random.default_rng(seed).integers(0, 90, (2, 3 if seed == 0 else 1))
        feeds.append({"input_ids": ids, **plain.others, **plain.caches[1]})
        plain.read(ids)
    quantize_onnx(model, feeds[1:]).write(quantized)
    both = Beside(quantized, kind, 2)
    steps = [step for step in both.engine._program.steps if step.op == "linear"]
    assert all("x_scale" in step.attributes for step in steps)
    ids = prompt(2)
    for _ in range(6):
        ours, theirs = both.read(ids)
        a, b = ours["logits"].ravel(), theirs["logits"].ravel()
        assert a @ b > 0.999 * np.linalg.norm(a) * np.linalg.norm(b)
        ids = theirs["logits"][:, -1:].argmax(-1)


def test_an_engine_names_its_free_sizes_and_refuses_too_long_a_text(tmp_path: Path) -> None:
    both = Beside(exported("gpt", "dynamo", tmp_path / "model.onnx"), "gpt", 1)
    assert both.engine.free_dimensions == ("batch", "length", "past")
    long = {name: np.zeros((1, 3, 63, 16), np.float32) for name in empty("gpt", 1)}
    with pytest.raises(ValueError, match="length 66 exceeds the 64 rows of the table of positions"):
        both.engine.run({"input_ids": prompt(1), **long})


def test_an_encoder_and_a_decoder_without_a_cache_agree_with_torch() -> None:
    """Token by token with caches, and the whole text at once: the same logits."""
    torch.manual_seed(1)
    config = KINDS["translator"]
    encoder, decoder = TransformerEncoder(config).eval(), TransformerDecoder(config).eval()
    ids, mask = torch.randint(0, 90, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    target = torch.randint(0, 90, (2, 5))
    with torch.no_grad():
        states = encoder(ids, mask)
        whole = decoder(target, states, mask, **config.empty_past(2))[0]
        past, rows = config.empty_past(2), []
        for at in range(5):
            logits, *caches = decoder(target[:, at : at + 1], states, mask, **past)
            past = dict(zip(past, caches, strict=True))
            rows.append(logits)
    assert torch.allclose(torch.cat(rows, 1), whole, atol=1e-5)
