"""The decoders of transformers, with their caches as inputs and outputs: their attention is native."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as tr
from torch import Tensor, nn

import openwork

LAYERS, HEADS, SIZE, WORDS = 2, 4, 16, 90
CACHES = [f"past_{index}" for index in range(2 * LAYERS)]
NEAR = 1e-3


def cache_of(past: tuple[Tensor, ...]) -> tr.DynamicCache:
    return tr.DynamicCache([(past[2 * i], past[2 * i + 1]) for i in range(LAYERS)])


def spread(cache: Any) -> list[Tensor]:
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


class Written(nn.Module):
    """GPT-2: ids and caches to logits and caches."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"n_embd": HEADS * SIZE, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
        config = tr.GPT2Config(vocab_size=WORDS, bos_token_id=1, eos_token_id=2, **sizes)
        self.model = tr.GPT2LMHeadModel(config)

    def forward(self, ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        made = self.model(input_ids=ids, past_key_values=cache_of(past), use_cache=True)
        return made.logits, *spread(made.past_key_values)


class Translated(nn.Module):
    """BART's decoder: ids, an encoder's states and mask, and caches of its own tokens."""

    def __init__(self) -> None:
        super().__init__()
        width = HEADS * SIZE
        config = tr.BartConfig(
            vocab_size=WORDS,
            d_model=width,
            encoder_layers=1,
            decoder_layers=LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=width,
            decoder_ffn_dim=width,
            max_position_embeddings=64,
        )
        self.decoder = tr.BartForConditionalGeneration(config).model.decoder

    def forward(self, ids: Tensor, states: Tensor, mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        made = self.decoder(
            input_ids=ids,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=tr.EncoderDecoderCache(cache_of(past), tr.DynamicCache()),
            use_cache=True,
        )
        return made.last_hidden_state, *spread(made.past_key_values.self_attention_cache)


def exported(model: nn.Module, inputs: dict[str, Tensor], exporter: str, path: Path) -> Path:
    axes = {name: {0: "batch", 2 if name in CACHES else 1: f"size_{name}"} for name in inputs}
    axes |= {name: {0: "batch", 2: "past"} for name in CACHES}
    outputs = ["y", *(name.replace("past", "present") for name in CACHES)]
    free = [dict.fromkeys(axes[name], torch.export.Dim.AUTO) for name in inputs]
    direct = len(inputs) - len(CACHES)
    how: dict[str, Any] = (
        {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
        if exporter == "legacy"
        else {
            "dynamo": True,
            "opset_version": 18,
            "dynamic_shapes": (*free[:direct], tuple(free[direct:])),
            "verbose": False,
        }
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), tuple(inputs.values()), path, input_names=list(inputs), output_names=outputs, **how
        )
    return path


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("kind", [Written, Translated])
def test_a_text_written_with_a_growing_cache(kind: type[nn.Module], exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source: dict[str, Tensor] = {}
    if kind is Translated:
        mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
        source = {"states": torch.randn(2, 7, HEADS * SIZE), "mask": mask}
    past = {name: torch.randn(2, HEADS, 5, SIZE) for name in CACHES}
    inputs = {"ids": torch.randint(3, WORDS, (2, 3)), **source, **past}
    model, engine_file = exported(kind(), inputs, exporter, tmp_path / "model.onnx"), tmp_path / "engine"
    report = openwork.build(model, engine_file, threads=2, progress=False)
    left = {node.split()[0] for part in report.fallbacks for node in part.nodes}
    assert not left & {"Softmax", "MatMul"}
    assert not left or kind is Translated
    engine = openwork.load(engine_file, threads=2)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    rest = {name: array.numpy() for name, array in source.items()}
    ids = np.random.default_rng(0).integers(3, WORDS, (2, 3))
    none = {name: np.zeros((2, HEADS, 0, SIZE), np.float32) for name in CACHES}
    caches = [none, none]
    for step in range(20):
        feeds = [{"ids": ids, **rest, **cache} for cache in caches]
        made = [engine.run(feeds[0]), dict(zip(names, session.run(None, feeds[1]), strict=True))]
        for name in names:
            assert np.abs(made[0][name] - made[1][name]).max() < NEAR, (step, name)
        caches = [{n: each[n.replace("past", "present")] for n in CACHES} for each in made]
        ids = np.abs(made[1]["y"][:, -1:, 3:]).argmax(-1) % (WORDS - 3) + 3
