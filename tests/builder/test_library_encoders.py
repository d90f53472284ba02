"""Encoders of transformers with their heads: wholly native by both exporters, and ONNX Runtime's numbers."""

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
from openwork.builder import tactics

WORDS, PADDING = 90, 1
NEAR = 2e-4
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "pad_token_id": PADDING,
}
NARROW = {"embedding_size": 16}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
ENCODERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert, classes": (tr.BertForSequenceClassification, tr.BertConfig, {}),
    "bert, answers": (tr.BertForQuestionAnswering, tr.BertConfig, {}),
    "bert, tokens": (tr.BertForTokenClassification, tr.BertConfig, {}),
    "bert, masked words": (tr.BertForMaskedLM, tr.BertConfig, {}),
    "roberta, classes": (tr.RobertaForSequenceClassification, tr.RobertaConfig, {}),
    "roberta, answers": (tr.RobertaForQuestionAnswering, tr.RobertaConfig, {}),
    "distilbert, classes": (tr.DistilBertForSequenceClassification, tr.DistilBertConfig, DISTIL),
    "distilbert, answers": (tr.DistilBertForQuestionAnswering, tr.DistilBertConfig, DISTIL),
    "albert, classes": (tr.AlbertForSequenceClassification, tr.AlbertConfig, NARROW),
    "electra, classes": (tr.ElectraForSequenceClassification, tr.ElectraConfig, NARROW),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)


class Headed(nn.Module):
    """Ids and a mask to the scores of a head, one after the other where there are two."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model, config, own = ENCODERS[name]
        self.model = model(config(**SIZES, **own))

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        made = self.model(input_ids=ids, attention_mask=mask)
        return tuple(value for key, value in made.items() if key.endswith("logits"))


def texts(batch: int, length: int) -> dict[str, np.ndarray]:
    """Ids with padding at their ends, and the mask that says where."""
    rng = np.random.default_rng(length)
    kept = np.arange(length) < rng.integers(1, length + 1, (batch, 1))
    return {"ids": np.where(kept, rng.integers(3, WORDS, kept.shape), PADDING), "mask": kept.astype(np.int64)}


def exported(name: str, path: Path, dynamo: bool) -> Path:
    torch.manual_seed(0)
    given = tuple(torch.from_numpy(value) for value in texts(2, 12).values())
    auto = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    axes = {0: "batch", 1: "length"}
    free: dict[str, Any] = {"dynamic_axes": {"ids": axes, "mask": axes}, "opset_version": 17}
    if dynamo:
        free = {"dynamic_shapes": (auto, auto), "verbose": False, "opset_version": 18}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Headed(name).eval(), given, str(path), dynamo=dynamo, input_names=["ids", "mask"], **free
        )
    return path


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_with_heads_are_wholly_native(name: str, dynamo: bool, tmp_path: Path) -> None:
    path = exported(name, tmp_path / "m.onnx", dynamo)
    target, cache = tmp_path / "m.engine", tmp_path / "timings.json"
    options: dict[str, Any] = {"native": "force", "strict": True, "threads": 1, "progress": False}
    openwork.build(path, target, shapes=[[2, 12]] if not dynamo else None, timing_cache=cache, **options)
    engine, session = openwork.load(target, threads=2), onnxruntime.InferenceSession(str(path))
    for batch, length in ((1, 7), (3, 33)):
        feed = texts(batch, length)
        wanted, found = session.run(None, feed), list(engine.run(feed).values())
        for ours, theirs in zip(found, wanted, strict=True):
            assert np.abs(ours - theirs).max() <= NEAR * max(1.0, float(np.abs(theirs).max()))
