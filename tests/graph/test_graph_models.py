"""Whole encoders, as each exporter writes them, reduced to nothing but openwork operators."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import quantization as ort_quantization

from graph_models import Reduced, reduced, runtime
from openwork.export import export
from openwork.models import BertConfig, BertEncoder, SentenceEmbedder
from openwork.quantization import QuantizationOptions, quantize

CONFIG = BertConfig(
    vocab_size=200,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=32,
)
NAMES = ["input_ids", "attention_mask"]
AXES = {0: "batch", 1: "length"}
FLOAT_OPERATORS = {
    "Linear f32": 8,
    "LayerNorm": 5,
    "Attention": 2,
    "EmbeddingSum": 1,
    "MeanPool": 1,
    "L2Normalize": 1,
}
INT8_OPERATORS = {
    "Linear": 8,
    **{name: count for name, count in FLOAT_OPERATORS.items() if name != "Linear f32"},
}
MINIMUM_COSINE = 0.999


def embedder(attention: str = "explicit") -> SentenceEmbedder:
    torch.manual_seed(7)
    model = SentenceEmbedder(BertEncoder(CONFIG)).eval()
    for parameter in model.parameters():
        # No constant biases and scales, so that nothing folds away that a trained model keeps.
        torch.nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.1)
    model.encoder.set_attention(attention)  # type: ignore[arg-type]
    return model


def example(batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, CONFIG.vocab_size, (batch, length), generator=generator)
    mask = (
        torch.arange(length)[None] < torch.tensor([length, *[max(1, length - 3)] * (batch - 1)])[:, None]
    ).long()
    return {"input_ids": ids, "attention_mask": mask}


def legacy(model: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path, opset: int) -> Path:
    """torch's older exporter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=["embedding"],
            dynamic_axes=dict.fromkeys(inputs, AXES),
        )
    return path


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The lowest cosine similarity of two batches of unit vectors."""
    return float((a * b).sum(-1).min())


def check(path: Path, operators: dict[str, int], **more: torch.Tensor) -> Reduced:
    """Reduced to these operators, and the same embeddings, for shapes other than the exported one."""
    model = onnx.load(path)
    for batch, length in ((1, 1), (3, 9)):
        feeds = {name: value.numpy() for name, value in example(batch, length, seed=5).items()}
        feeds |= {name: np.zeros((batch, length), np.int64) for name in more}
        found = reduced(model, feeds)
        assert found.left == []
        assert Counter(found.operators) == operators
        (before,), (after,) = found.before.values(), found.after.values()
        assert before.shape == after.shape == (batch, CONFIG.hidden_size)
        assert cosine(before, after) >= MINIMUM_COSINE
    return found


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_float_from_the_current_exporter(tmp_path: Path, attention: str) -> None:
    path = export(embedder(attention), example(2, 7), tmp_path / "model.onnx")
    found = check(path, FLOAT_OPERATORS)
    # Unit vectors; attention in fixed point moves a value by some 1e-5 of the largest one, in two layers.
    assert np.abs(found.before["embedding"] - found.after["embedding"]).max() < 1e-4


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("opset", [14, 17])
def test_float_from_the_older_exporter(tmp_path: Path, attention: str, opset: int) -> None:
    """Opset 14 has no LayerNormalization and no Gelu: both are written out."""
    check(legacy(embedder(attention), example(2, 7), tmp_path / "model.onnx", opset), FLOAT_OPERATORS)


def test_quantized_from_the_current_exporter(tmp_path: Path) -> None:
    batches = [example(4, 9, seed) for seed in range(4)]
    model = quantize(embedder(), batches, QuantizationOptions(style="openwork"))
    found = check(export(model, example(2, 7), tmp_path / "model.onnx"), INT8_OPERATORS)
    names = [node.name for node in found.nodes if node.op_type == "Linear"]
    assert names[0] == "encoder.encoder.layer.0.attention.self.qkv"
    assert names[1] == "encoder.encoder.layer.0.attention.output.dense"
    tensors = [value.name for value in found.nodes[2].inputs[2:]]
    assert tensors == [f"{names[0]}.{part}" for part in ("weight", "weight_scale", "bias")]
    quantized = Counter(
        node.outputs[0].dtype.name for node in found.nodes if node.op_type in ("Linear", "Attention")
    )
    assert quantized == {"UINT8": 4, "FLOAT": 6}


class _Calibration(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.batches = iter([{k: v.numpy() for k, v in example(4, 9, seed).items()} for seed in range(4)])

    def get_next(self) -> Any:
        return next(self.batches, None)


def quantized_by_runtime(source: Path, path: Path, **options: Any) -> Path:
    """ONNX Runtime's own static quantization of the products."""
    format_ = options.pop("format", ort_quantization.QuantFormat.QDQ)
    ort_quantization.quantize_static(
        str(source),
        str(path),
        _Calibration(),
        quant_format=format_,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"WeightSymmetric": True},
        **options,
    )
    return path


U8, S8 = ort_quantization.QuantType.QUInt8, ort_quantization.QuantType.QInt8


def check_rounded(path: Path, truth: Path) -> None:
    """Both ways to take the roundings of a model whose biases are added behind them."""
    feeds = {name: value.numpy() for name, value in example(3, 9, seed=5).items()}
    (right,) = runtime(onnx.load(truth), feeds).values()
    for rounding in ("exact", "relaxed"):
        found = reduced(onnx.load(path), feeds, rounding)
        assert not found.left
        counts = Counter(found.operators)
        assert {name: counts[name] for name in ("Linear", "Attention", "LayerNorm", "MeanPool")} == {
            "Linear": 12,
            "Attention": 2,
            "LayerNorm": 5,
            "MeanPool": 1,
        }
        attention = next(node for node in found.nodes if node.op_type == "Attention")
        (before,), (after,) = found.before.values(), found.after.values()
        if rounding == "exact":
            assert {"score_scale", "probability_scale", "y_scale"} <= set(attention.attributes)
            assert not found.notes
            # The same integers but for ties, which a network of two layers spreads.
            assert cosine(after, before) >= MINIMUM_COSINE
        else:
            assert len(found.notes) >= 10
            assert cosine(after, right) >= cosine(before, right) - (1 - MINIMUM_COSINE)


@pytest.mark.parametrize("activations", [U8, S8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_quantized_by_onnx_runtime(tmp_path: Path, activations: Any, per_channel: bool) -> None:
    """Its dialect has Q/DQ on inputs and outputs of products, those of attention among them."""
    source = legacy(embedder(), example(2, 7), tmp_path / "float.onnx", 17)
    options = {"activation_type": activations, "weight_type": S8, "per_channel": per_channel}
    check_rounded(quantized_by_runtime(source, tmp_path / "model.onnx", **options), source)


def test_qoperator_files(tmp_path: Path) -> None:
    source = legacy(embedder(), example(2, 7), tmp_path / "float.onnx", 17)
    options = {"activation_type": U8, "weight_type": S8, "format": ort_quantization.QuantFormat.QOperator}
    check_rounded(quantized_by_runtime(source, tmp_path / "model.onnx", **options), source)


def hugging_face(attention: str) -> torch.nn.Module:
    """A BERT of the transformers library with mean pooling, as sentence embedders are exported from it."""
    transformers = pytest.importorskip("transformers", reason="transformers is in the extra `dev`")
    torch.manual_seed(7)
    sizes = {key: value for key, value in vars(CONFIG).items() if key != "layer_norm_eps"}
    config = transformers.BertConfig(**sizes, attn_implementation=attention)
    encoder = transformers.BertModel(config, add_pooling_layer=False).eval()

    class Embedder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            states = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state
            weights = attention_mask.unsqueeze(-1).expand(states.size()).float()
            mean = torch.sum(states * weights, 1) / torch.clamp(weights.sum(1), min=1e-9)
            return torch.nn.functional.normalize(mean, p=2, dim=1)

    return Embedder()


def dynamo(model: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path, opset: int) -> Path:
    """torch's current exporter, as others call it."""
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            dynamic_shapes=tuple(free for _ in inputs),
            verbose=False,
        )
    program.save(str(path))
    return path


@pytest.mark.parametrize(("exporter", "attention"), [(dynamo, "sdpa"), (legacy, "sdpa"), (legacy, "eager")])
def test_hugging_face_exports(tmp_path: Path, attention: str, exporter: Callable[..., Path]) -> None:
    """Masks by Where or GatherND of ranges, types as an input, positions gathered by a slice of a buffer."""
    kinds = torch.zeros((2, 7), dtype=torch.int64)
    inputs = {**example(2, 7), "token_type_ids": kinds}
    path = exporter(
        hugging_face(attention), inputs, tmp_path / "model.onnx", 18 if exporter is dynamo else 14
    )
    found = check(path, FLOAT_OPERATORS, token_type_ids=kinds)
    (sum_,) = [node for node in found.nodes if node.op_type == "EmbeddingSum"]
    assert [value.name for value in sum_.inputs[:2]] == ["input_ids", "token_type_ids"]
