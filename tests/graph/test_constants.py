"""Operators on stored tensors: computed when the model is read, or left to ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import openwork
from graph_models import Builder, assert_close, reduced, runtime
from openwork.graph import read
from openwork.graph.evaluate import run_onnx_node

FEED = np.linspace(-2, 2, 16, dtype=np.float32).reshape(2, 8)
UNARY: dict[str, dict[str, Any]] = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "HardSwish": {},
    "Gelu": {},
    "LeakyRelu": {"alpha": 0.3},
    "Softmax": {"axis": 0},
    "LpNormalization": {"axis": 1},
}


def builder() -> tuple[Builder, str]:
    b = Builder(np.random.default_rng(0))
    return b, b.input("x", ["n", 8])


@pytest.mark.parametrize("op", UNARY)
def test_a_function_of_a_weight_is_computed_once(op: str) -> None:
    b, x = builder()
    found = reduced(b.model(y=b.add("MatMul", x, b.add(op, b.normal(8, 4), **UNARY[op]))), {"x": FEED})
    assert found.operators == ["Linear f32"]
    assert_close(found, 1e-5)


def test_a_normalized_table_is_computed_once() -> None:
    b, x = builder()
    table = b.add("LayerNormalization", b.normal(8, 4), b.normal(4), b.normal(4), axis=-1)
    found = reduced(b.model(y=b.add("MatMul", x, table)), {"x": FEED})
    assert found.operators == ["Linear f32"]
    assert_close(found, 1e-5)


def test_a_product_of_stored_tensors_is_computed_once() -> None:
    b, x = builder()
    product = b.add("Relu", b.add("MatMul", b.normal(2, 4), b.normal(4, 8)))
    found = reduced(b.model(y=b.add("Add", x, product)), {"x": FEED})
    assert not {"Linear f32", "onnx.MatMul", "onnx.Relu"} & set(found.operators)
    assert_close(found, 1e-5)


def engine_output(model: onnx.ModelProto | Path, folder: Path) -> np.ndarray[Any, Any]:
    path = folder / "model.engine"
    openwork.build(model, path, threads=1, progress=False, timing_cache=folder / "cache.json")
    (made,) = openwork.load(path, threads=1).run({"x": FEED}).values()
    return made


@pytest.mark.parametrize("op", ["Relu", "Softmax"])
def test_an_output_that_is_a_function_of_a_weight(op: str, tmp_path: Path) -> None:
    """An output keeps its node, and no native step reads a stored tensor as its activation."""
    b, x = builder()
    total = b.add("ReduceSum", b.add("Add", x, b.number(1.0)), keepdims=0)
    model = b.model(y=b.add("Add", b.add(op, b.normal(8, 4)), total))
    expected = runtime(model, {"x": FEED})["y"]
    np.testing.assert_allclose(engine_output(model, tmp_path), expected, rtol=1e-5)


def test_a_quantized_stored_activation(tmp_path: Path) -> None:
    """Integers of a stored tensor, dequantized for a product of two of them."""
    b, x = builder()
    stored = b.round_trip(b.normal(2, 8), 0.02, 128)
    weight = b.add(
        "DequantizeLinear", b.constant(np.arange(-32, 32, dtype=np.int8).reshape(8, 8)), b.number(0.01)
    )
    model = b.model(y=b.add("Add", x, b.add("MatMul", stored, weight)))
    expected = runtime(model, {"x": FEED})["y"]
    np.testing.assert_allclose(engine_output(model, tmp_path), expected, rtol=1e-5)


def test_an_engine_of_a_model_with_external_data_lies_anywhere(tmp_path: Path) -> None:
    """The weight of a native product and the one of a part in ONNX Runtime."""
    b, x = builder()
    product = b.add("MatMul", x, b.normal(8, 64))
    model = b.model(
        y=b.add("Cos", b.add("Add", product, b.add("Sin", b.add("Mul", product, b.normal(1, 64)))))
    )
    expected = runtime(model, {"x": FEED})["y"]
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(
        model, source / "model.onnx", save_as_external_data=True, location="model.data", size_threshold=0
    )
    path = tmp_path / "model.engine"
    openwork.build(source / "model.onnx", path, threads=1, progress=False, timing_cache=tmp_path / "c.json")
    (source / "model.data").unlink()
    (made,) = openwork.load(path, threads=1).run({"x": FEED}).values()
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


def test_external_data_of_a_branch_goes_into_the_engine(tmp_path: Path) -> None:
    """The weight of an If's body, which no native step runs."""
    text = """<ir_version: 9, opset_import: ["": 18]> g (float[n,8] x) => (float[n,8] y) {
      total = ReduceSum<keepdims=0>(x)  zero = Constant<value = float {0.0}>()  up = Greater(total, zero)
      y = If(up) <
        then_branch = t () => (float[n,8] a) { a = Mul(x, w) },
        else_branch = e () => (float[n,8] b) { b = Neg(x) }
      > }"""
    model, weight = onnx.parser.parse_model(text), np.linspace(1, 2, 8, dtype=np.float32)
    (branch,) = [held.g for node in model.graph.node for held in node.attribute if held.name == "then_branch"]
    branch.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    feed = np.abs(FEED) + 1
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(model, source / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    path = tmp_path / "model.engine"
    openwork.build(source / "m.onnx", path, threads=1, progress=False, timing_cache=tmp_path / "c.json")
    (source / "m.data").unlink()
    (made,) = openwork.load(path, threads=1).run({"x": feed}).values()
    np.testing.assert_array_equal(made, feed * weight)


def test_indices_smaller_than_what_they_gather_from() -> None:
    """As a BERT without token types looks its first positions up."""
    b = Builder(np.random.default_rng(0))
    rows = b.input("rows", ["n", 64])
    gathered = b.add("GatherElements", rows, b.constant(np.array([[5, -1, 3]])), axis=1)
    graph = read(b.model(y=gathered)).graph
    data, indices = np.arange(128.0).reshape(2, 64), np.array([[5, -1, 3]])
    (node,) = [node for node in graph if node.op_type == "GatherElements"]
    (found,) = run_onnx_node(node, [data, indices])
    np.testing.assert_array_equal(found, [[5, 63, 3]])
