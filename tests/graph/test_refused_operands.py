"""What no native step can read stays ONNX: values of unknown rank or type, scalars; added axes are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import openwork
from graph_models import Builder, assert_close, reduced, runtime


def builder() -> Builder:
    return Builder(np.random.default_rng(0))


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_a_constant_with_more_axes_than_the_product_keeps_them(op: str, quantized: bool) -> None:
    b = builder()
    product = b.add("MatMul", b.input("x", ["n", 6, 8]), b.normal(8, 5))
    y = b.add(op, product, b.constant(np.abs(ones(1, 1, 1, 5)) + 1))
    found = reduced(b.model(y=b.round_trip(y, 0.125, 128) if quantized else y), {"x": ones(3, 6, 8)})
    assert found.after["y"].shape == (1, 3, 6, 5)
    assert_close(found, 1e-6)


def test_a_dropout_whose_mask_is_an_output_stays() -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", 8]))
    b.nodes.append(helper.make_node("Dropout", [x], ["y", "kept"], "drop"))
    model = b.model(y="y", kept="kept")
    model.graph.output[1].CopyFrom(helper.make_tensor_value_info("kept", TensorProto.BOOL, ["n", 8]))
    found = reduced(model, {"x": ones(3, 8)})
    assert "onnx.Dropout" in found.operators
    assert found.after["kept"].all()


def engine_output(model: onnx.ModelProto, x: np.ndarray[Any, Any], folder: Path) -> np.ndarray[Any, Any]:
    path = folder / "model.engine"
    openwork.build(model, path, threads=1, progress=False, timing_cache=folder / "cache.json")
    (made,) = openwork.load(path, threads=1).run({"x": x}).values()
    return made


def test_steps_behind_an_operator_without_inference_run_in_onnx_runtime(tmp_path: Path) -> None:
    """onnx knows neither type nor rank of what com.microsoft's Gelu makes."""
    text = """<ir_version: 9, opset_import: ["": 18, "com.microsoft": 1]> g (float[n,8] x) => (float[n,8] y)
      <float scale = {0.0625}, uint8 point = {100}> {
        t = com.microsoft.Gelu(x)  q = QuantizeLinear(t, scale, point)
        d = DequantizeLinear(q, scale, point)  y = Tanh(d) }"""
    model, feed = onnx.parser.parse_model(text), ones(3, 8)
    np.testing.assert_allclose(engine_output(model, feed, tmp_path), runtime(model, {"x": feed})["y"], 1e-6)


def test_a_scalar_input_of_a_native_operator_stays_a_scalar(tmp_path: Path) -> None:
    b = builder()
    model = b.model(y=b.add("Tanh", b.input("x", [])))
    feed = np.array(0.5, np.float32)
    made = engine_output(model, feed, tmp_path)
    assert made.shape == ()
    np.testing.assert_allclose(made, np.tanh(feed), 1e-6)
