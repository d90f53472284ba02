"""The whole road in under a minute: a dense network in, a sparse INT8 engine out, the same answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import openwork
from openwork.builder import tactics
from openwork.export import export
from openwork.graph import read, reduce
from openwork.graph.reference import run as reference
from openwork.models.bert import BertConfig, BertEncoder, SentenceEmbedder
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Pruner

SEED = 7
CONFIG = BertConfig(
    vocab_size=97,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=48,
)
Feed = dict[str, np.ndarray]


def text(batch: int, length: int, seed: int) -> Feed:
    """Random ids with masks that keep a first part of each row."""
    rng = np.random.default_rng(seed)
    kept = np.arange(length) < rng.integers(min(2, length), length + 1, (batch, 1))
    return {
        "input_ids": rng.integers(0, CONFIG.vocab_size, (batch, length)),
        "attention_mask": kept.astype(np.int64),
    }


def tensors(feed: Feed) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in feed.items()}


@dataclass(frozen=True)
class Road:
    """What the road leaves behind."""

    dense: SentenceEmbedder
    onnx: Path
    engine: Path
    report: openwork.BuildReport


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Road:
    folder = tmp_path_factory.mktemp("road")
    torch.manual_seed(SEED)
    model = SentenceEmbedder(BertEncoder(CONFIG)).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pruner = Pruner(model, "2:4")
    pruner.prune()
    pruner.verify()
    batches = [tensors(text(8, 24, seed)) for seed in range(4)]
    quantized = quantize(model, batches, QuantizationOptions(style="openwork"))
    onnx = export(quantized, tensors(text(2, 5, 0)), folder / "tiny.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
        patch.setattr(tactics, "DISTURBED", np.inf)
        report = openwork.build(
            onnx,
            folder / "tiny.engine",
            shapes=[(1, 8), (4, 24)],
            strict=True,
            timing_cache=folder / "timings.json",
            progress=False,
        )
    dense = SentenceEmbedder(BertEncoder(CONFIG)).eval()
    dense.load_state_dict(state)
    return Road(dense, onnx, folder / "tiny.engine", report)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_every_linear_layer_arrives_sparse_and_quantized(road: Road) -> None:
    # Queries, keys and values are one product: four layers in each of the encoder's two.
    assert len(road.report.layers) == 4 * CONFIG.num_hidden_layers
    for layer in road.report.layers:
        assert (layer.pattern, layer.eligible) == ("2:4", True), layer.name
        assert layer.zeros >= 0.5
        assert layer.bytes_stored <= 0.7 * layer.bytes_dense
    assert not road.report.fallbacks
    assert road.report.accuracy_kept


@pytest.mark.parametrize("threads", [1, 2])
def test_the_engine_has_the_bits_of_the_reference(road: Road, threads: int) -> None:
    model, _, _ = reduce(read(road.onnx))
    engine = openwork.load(road.engine, threads=threads)
    for batch, length in ((1, 1), (2, 13), (3, 24)):
        feed = text(batch, length, seed=50 + length)
        expected = reference(model, feed)["embedding"]
        np.testing.assert_array_equal(engine.run(feed)["embedding"].view(np.uint32), expected.view(np.uint32))


def test_the_engine_agrees_with_onnx_runtime(road: Road) -> None:
    session = onnxruntime.InferenceSession(road.onnx, providers=["CPUExecutionProvider"])
    engine = openwork.load(road.engine, threads=1)
    feed = text(16, 24, seed=99)
    # Both round the same real numbers; a rounding that falls the other way moves one activation by one unit.
    agreement = cosine(engine.run(feed)["embedding"], session.run(None, feed)[0])
    assert agreement.min() >= 0.999, agreement


def test_the_engine_stays_near_the_dense_network(road: Road) -> None:
    feed = text(16, 24, seed=100)
    with torch.no_grad():
        dense = road.dense(**tensors(feed)).numpy()
    found = openwork.load(road.engine, threads=1).run(feed)["embedding"]
    # Half of random weights are gone, so this only tells the right network from a wrong one.
    assert np.median(cosine(found, dense)) > 0.8
    assert np.median(cosine(found, dense[::-1])) < np.median(cosine(found, dense))


def test_the_engine_is_smaller_than_the_model(road: Road) -> None:
    weights = sum(layer.bytes_dense - layer.bytes_stored for layer in road.report.layers)
    assert weights > 0
    assert road.engine.stat().st_size < road.onnx.stat().st_size
