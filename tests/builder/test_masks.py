"""Attention whose mask is not INT64: one small part for ONNX Runtime makes it, and the rest is native."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import attention_bound
from graph_models import Builder, runtime
from openwork import build, load

HEADS, SIZE = 2, 8
WIDTH = HEADS * SIZE
# The error of values below 5 where |q| |k| scale stays below 64, in texts of 6 tokens, twice.
FIXED_POINT = 2 * 5 * attention_bound.relative(64, SIZE, 6)


def layer(b: Builder, x: str, padded: str) -> str:
    split = b.add("Reshape", x, b.integers(0, 0, HEADS, SIZE))
    q, k, v = (b.add("Transpose", split, perm=perm) for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    scores = b.add(
        "Where", b.add("Unsqueeze", padded, b.integers(1, 2)), b.number(-np.inf), b.add("MatMul", q, k)
    )
    mixed = b.add("MatMul", b.add("Softmax", scores, axis=-1), v)
    return b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(0, 0, WIDTH))


@pytest.mark.parametrize("dtype", [TensorProto.BOOL, TensorProto.INT32, TensorProto.FLOAT])
def test_a_padding_mask_of_another_type_becomes_one_small_part(dtype: int, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", "length", WIDTH])
    padded = b.add("Cast", b.input("padded", ["batch", "length"], dtype), to=TensorProto.BOOL)
    model = b.model(y=layer(b, b.add("Relu", layer(b, x, padded)), padded))
    cache = tmp_path / "cache.json"
    build(model, tmp_path / "m.engine", shapes=[[2, 6]], timing_cache=cache, progress=False)
    engine = load(tmp_path / "m.engine", threads=1)
    (part,) = engine.report.fallbacks
    assert "it makes INT64 zeros and ones, which native steps read, of 'padded'" in part.reason
    assert [step.op for step in engine._program.steps if step.op != "fallback"] == [
        "attention",
        "relu",
        "attention",
    ]
    given = {TensorProto.BOOL: np.bool_, TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32}[dtype]
    feeds = {
        "x": b.rng.standard_normal((2, 6, WIDTH)).astype(np.float32),
        "padded": np.array([[0, 0, 0, 0, 1, 1], [1, 0, 0, 1, 0, 1]]).astype(given),
    }
    np.testing.assert_allclose(engine.run(feeds)["y"], runtime(model, feeds)["y"], rtol=0, atol=FIXED_POINT)
