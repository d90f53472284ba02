"""`nn.TransformerEncoder` in this engine's own style: INT8 projections, native attention, both exporters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from openwork import build, load
from openwork.export import ExportOptions, export
from openwork.quantization import QuantizationOptions, quantize


class Encoder(nn.Module):
    """Token ids and what masks their padding, to eight numbers for each token."""

    def __init__(self, batch_first: bool, activation: str, norm_first: bool, padding: str) -> None:
        super().__init__()
        self.batch_first, self.padding = batch_first, padding
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(
            32, 4, 64, batch_first=batch_first, activation=activation, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embedding(input_ids)
        padded = attention_mask == 0 if self.padding == "computed" else attention_mask
        if self.batch_first:
            return self.head(self.encoder(x, src_key_padding_mask=padded))
        y = self.encoder(x.transpose(0, 1), src_key_padding_mask=padded)
        return self.head(y.transpose(0, 1))


def example(padding: str) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (3, 10), generator=torch.Generator().manual_seed(1))
    kept = torch.ones(3, 10, dtype=torch.long)
    kept[1, 6:] = 0
    kept[2, 3:] = 0
    return {"input_ids": ids} | (
        {} if padding == "none" else {"attention_mask": kept if padding == "computed" else kept == 0}
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Timings that equal layers of all these models share."""
    return tmp_path_factory.mktemp("timings") / "cache.json"


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize(
    ("batch_first", "activation", "norm_first", "padding"),
    [
        (True, "gelu", False, "computed"),
        (True, "relu", True, "given"),
        (True, "relu", False, "none"),
        (False, "relu", True, "given"),
        (False, "gelu", False, "computed"),
    ],
)
def test_its_attention_is_native_and_its_projections_are_int8(
    tmp_path: Path,
    cache: Path,
    exporter: str,
    batch_first: bool,
    activation: str,
    norm_first: bool,
    padding: str,
) -> None:
    torch.manual_seed(0)
    model = Encoder(batch_first, activation, norm_first, padding).eval()
    batch = example(padding)
    quantized = quantize(model, [batch], QuantizationOptions(style="openwork"))
    path = export(quantized, batch, tmp_path / "m.onnx", ExportOptions(exporter=exporter))
    build(path, tmp_path / "m.engine", shapes=[[3, 10]], progress=False, timing_cache=cache)
    engine = load(tmp_path / "m.engine", threads=1)
    steps = [step.op for step in engine._program.steps]
    assert steps.count("attention") == 2
    left = [node for part in engine.report.fallbacks for node in part.nodes]
    assert not [node for node in left if node.split()[0] in ("MatMul", "Gemm", "Softmax", "Transpose")]
    # Queries, keys and values together, the output projection, both layers of the network, twice; the head.
    assert [layer.element for layer in engine.report.layers] == ["i8"] * 9
    feeds = {name: value.numpy() for name, value in batch.items()}
    (given,) = engine.run(feeds).values()
    expected = onnxruntime.InferenceSession(str(path)).run(None, feeds)[0]
    kept = np.ones((3, 10), bool) if padding == "none" else _kept(feeds["attention_mask"])
    assert given.shape == expected.shape
    a, b = given[kept].ravel(), expected[kept].ravel()
    assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) >= 0.999
    assert len(onnx.load(path).graph.input) == len(feeds)


def _kept(mask: np.ndarray) -> np.ndarray:
    return mask == 0 if mask.dtype == bool else mask != 0


@pytest.mark.parametrize("style", ["tensorrt", "onnxruntime"])
def test_other_styles_are_native_too_and_load(style: str, tmp_path: Path, cache: Path) -> None:
    """A rule makes two nodes of one Gather, which ONNX Runtime takes under different names alone."""
    torch.manual_seed(0)
    batch = example("computed")
    model = Encoder(True, "gelu", False, "computed").eval()
    quantized = quantize(model, [batch], QuantizationOptions(style=style))
    path = export(quantized, batch, tmp_path / "m.onnx", ExportOptions(exporter="dynamo"))
    report = build(path, tmp_path / "m.engine", shapes=[[3, 10]], progress=False, timing_cache=cache)
    assert not [note for note in report.notes if "differs" in note]
    engine = load(tmp_path / "m.engine", threads=1)
    assert [step.op for step in engine._program.steps].count("attention") == 2
