"""Export against ONNX Runtime, which nobody here wrote, and its refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from openwork.export import ExportOptions, export
from openwork.models import BertConfig, BertEncoder, SentenceEmbedder, load_minilm, load_tokenizer
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Pattern
from openwork.sparsity.masks.mask import best_mask
from openwork.sparsity.masks.view import WeightView

TINY = BertConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=512,
)  # fmt: skip
QUERY = "encoder.encoder.layer.0.attention.self.query"
SENTENCES = [
    "A man is eating food.",
    "Return the sum of a start value plus an iterable of numbers.",
    "Hash tables: collisions, load factor and resizing",
    "When the iterable is empty, return the start value.",
    "Parse a date",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
]


def _inputs(batch: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[0, length // 2 + 1 :] = 0
    return {"input_ids": torch.randint(1, 50, (batch, length), generator=generator), "attention_mask": mask}


def _embedder(pattern: str | None = None) -> SentenceEmbedder:
    torch.manual_seed(0)
    model = SentenceEmbedder(BertEncoder(TINY)).eval()
    if pattern:
        prune(model, pattern)
    return model


def prune(model: torch.nn.Module, pattern: str) -> None:
    """Put a mask on every linear layer and convolution, as a pruner leaves it."""
    for module in model.modules():
        view = WeightView.of(module)
        if view is not None:
            weight = module.get_parameter("weight")
            scores = view.matrices(weight.detach().abs())
            mask = view.restore(best_mask(scores, Pattern.parse(pattern)))
            module.register_buffer("weight_mask", mask)
            weight.data *= mask


def _quantized(model: SentenceEmbedder, activation: str = "u8") -> torch.nn.Module:
    options = QuantizationOptions(style="openwork", activation=activation)  # type: ignore[arg-type]
    return quantize(model, [_inputs(4, 9, seed) for seed in range(3)], options)


def _session(path: Path, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(path: Path, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    return _session(path).run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]


Exported = dict[str, tuple[torch.nn.Module, Path]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Tiny models and their files: float, and quantized both ways."""
    folder, model = tmp_path_factory.mktemp("exported"), _embedder()
    modules = {"float": model, "s8": _quantized(model, "s8"), "u8": _quantized(model)}
    return {
        name: (module, export(module, _inputs(2, 5), folder / f"{name}.onnx"))
        for name, module in modules.items()
    }


@pytest.mark.parametrize("name", ["float", "s8", "u8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 16), (2, 512)])
def test_the_file_agrees_with_torch_at_any_shape(
    exported: Exported, name: str, shape: tuple[int, int]
) -> None:
    module, path = exported[name]
    inputs = _inputs(*shape, seed=9)
    with torch.inference_mode():
        expected = module(**inputs).numpy()
    # Unit vectors: 0.999 leaves room for single roundings that fall to the other side of a tie.
    assert (_run(path, inputs) * expected).sum(1).min() > (0.99999 if name == "float" else 0.999)


def test_names_shapes_and_types_of_the_graph(exported: Exported) -> None:
    path = exported["u8"][1]
    session = _session(path)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        (name, "tensor(int64)", ["batch", "length"]) for name in ("input_ids", "attention_mask")
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("embedding", ["batch", 32])]
    proto = onnx.load(path)
    tensors = {t.name: t for t in proto.graph.initializer}
    weights = [
        n for n in tensors if n.endswith("dense.weight") or n.endswith(("query.weight", "value.weight"))
    ]
    assert len(weights) == 10
    assert {tensors[name].data_type for name in weights} == {onnx.TensorProto.INT8}
    assert list(tensors["encoder.encoder.layer.1.intermediate.dense.weight"].dims) == [32, 64]
    names = [node.name for node in proto.graph.node]
    assert f"{QUERY}/MatMul" in names
    assert len(set(names)) == len(names)
    counts = Counter(node.op_type for node in proto.graph.node)
    assert counts["QuantizeLinear"] == 8, "query, key and value share theirs"
    assert (counts["LayerNormalization"], counts["Gelu"], counts["Softmax"]) == (5, 2, 2)


def test_nothing_of_this_machine_is_written(exported: Exported) -> None:
    path = exported["float"][1]
    proto = onnx.load(path)
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert b".py" not in path.read_bytes()


def test_onnx_runtime_uses_its_integer_kernels(exported: Exported, tmp_path: Path) -> None:
    _session(exported["u8"][1], tmp_path / "optimized.onnx")
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert counts["MatMulIntegerToFloat"] == 12
    assert counts["DequantizeLinear"] == 0


def test_patterns_hold_in_the_integers_and_are_recorded(tmp_path: Path) -> None:
    model = _embedder("4:16")
    layers = [name for name, module in model.named_modules() if hasattr(module, "weight_mask")]
    options = ExportOptions(patterns=dict.fromkeys(layers, "4:16"))
    path = export(_quantized(model), _inputs(2, 5), tmp_path / "int8.onnx", options)
    found = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert found == {f"openwork.pattern.{layer}.weight": "4:16" for layer in layers}
    unnamed = export(model, _inputs(2, 5), tmp_path / "unnamed.onnx")
    assert {p.key for p in onnx.load(unnamed).metadata_props} == set(found)


def test_a_weight_that_breaks_its_pattern_is_refused(tmp_path: Path) -> None:
    model = _embedder("2:4")
    layer = model.get_submodule(QUERY)
    options = ExportOptions(patterns={QUERY: "1:4"})
    with pytest.raises(
        ValueError, match=rf"{QUERY}: the exported weight breaks its pattern 1:4: row 0, group 0: 2 "
    ):
        export(_quantized(model), _inputs(2, 5), tmp_path / "m.onnx", options)
    row, column = (~layer.get_buffer("weight_mask")).nonzero()[5].tolist()
    with torch.no_grad():
        layer.get_parameter("weight")[row, column] = 0.1
    with pytest.raises(
        ValueError, match=rf"weight at row {row}, column {column} is not zero though its mask drops"
    ):
        export(_quantized(model), _inputs(2, 5), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"The pruned layer nowhere has no weight nowhere.weight"):
        export(_embedder(), _inputs(2, 5), tmp_path / "m.onnx", ExportOptions(patterns={"nowhere": "2:4"}))
    assert list(tmp_path.iterdir()) == []


def test_an_example_of_length_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"input_ids must be at least 2 long in its free dimension 0 \(batch\)"
    ):
        export(_embedder(), _inputs(1, 5), tmp_path / "m.onnx")


def test_the_real_model_agrees_on_real_sentences(tmp_path: Path) -> None:
    model, tokenizer = load_minilm(), load_tokenizer()
    tokens = tokenizer.encode_batch(SENTENCES)
    inputs = {
        "input_ids": torch.tensor([t.ids for t in tokens]),
        "attention_mask": torch.tensor([t.attention_mask for t in tokens]),
    }
    quantized = quantize(model, [inputs, inputs], QuantizationOptions(style="openwork"))
    path = export(quantized, inputs, tmp_path / "m.onnx")
    with torch.inference_mode():
        expected, exact = quantized(**inputs).numpy(), model(**inputs).numpy()
    # A rounding that falls to the other side of a tie grows to a part of the quantization's own noise, which
    # is 1 - 0.995 at worst here; so the two may differ by a fraction of that and no more.
    assert (_run(path, inputs) * expected).sum(1).min() > 0.999
    assert (exact * expected).sum(1).min() > 0.995
