"""The model's quantizers are a contract: engines give what ONNX Runtime gives on the same file.

The witness is ONNX Runtime's CPU provider without graph optimizations: it dequantizes, multiplies and adds in
binary32, and quantizes again, node by node, as the file says. (Its fused QLinear kernels would be another
implementation of a fusion, and not of the file.) Its products are sums of at most 72 dequantized numbers, so
they err by a few units of 2^-24 of their magnitudes, while openwork's are exact integers, scaled once. What
both may give is derived in `tests/qdq_bounds.py` and `tests/image_bounds.py`: an integer is certain unless a
tie lies between the ends of what is rounded, and then equality is asked to the bit; where a tie does lie
there, its neighbours are right.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization as ort_quantization

import qdq_contract
from graph_models import Builder, runtime
from qdq_contract import GRAPHS_PER_MODEL, check, engine_of

GRAPHS = int(os.environ.get("OPENWORK_TEST_GRAPHS", "2000"))
"""Each takes some 20 ms; OPENWORK_TEST_GRAPHS=10000 draws as many as the claim is made for."""


def test_random_graphs_give_what_onnx_runtime_gives() -> None:
    found = qdq_contract.check_all(range(-(-GRAPHS // GRAPHS_PER_MODEL)))
    assert not found.faults, "\n".join(found.faults[:20])
    # Ties leave open one integer in a hundred at most, or the bounds would say too little.
    assert found.open_integers <= 0.01 * found.integers
    assert found.open_floats <= 0.03 * found.floats
    rows = ("linear", "quantize", "dequantize", "attention", "layer_norm", "add", "softmax", "fallback")
    images = ("conv", "max_pool", "average_pool", "global_average_pool", "pad", "to_channels_last")
    for step in (*rows, *images, "lookup", "multiply", "concat"):
        assert found.steps[step] >= GRAPHS / 100, step


def test_the_comparison_sees_a_rounding_that_is_left_out() -> None:
    outcomes = [check(seed, "relaxed") for seed in range(6)]
    assert sum(bool(outcome.faults) for outcome in outcomes) >= 5


def product(b: Builder, x: str, weight: np.ndarray, scale: float = 1 / 127) -> str:
    values = b.constant(weight.astype(np.int8))
    return b.add("MatMul", x, b.add("DequantizeLinear", values, b.number(scale)))


def outputs(model: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> np.ndarray:
    """The one output of an engine; ONNX Runtime must give the same to a few units of binary32."""
    (found,) = engine_of(model, folder / "m.engine").run(feeds).values()
    (expected,) = runtime(model, feeds).values()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    return found


def test_an_output_is_clamped_to_what_its_integers_hold(tmp_path: Path) -> None:
    """Scale 0.05 and zero point 128: -6.4 to 6.35."""
    b = Builder(np.random.default_rng(0))
    x = b.round_trip(b.input("x", [5, 1]), 0.25, 100)
    y = b.round_trip(product(b, x, np.array([[127]])), 0.05, 128)
    x_values = np.array([[-19.5], [22.5], [3.0], [-6.5], [0.1]], np.float32)
    found = outputs(b.model(y=y), {"x": x_values}, tmp_path)
    assert np.allclose(found[:, 0], [-6.4, 6.35, 3.0, -6.4, 0.0], rtol=0, atol=1e-6)


def test_a_rounding_before_a_softmax(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.add("Softmax", b.round_trip(b.input("x", [1, 3]), 1.0, 128), axis=-1)
    found = outputs(b.model(y=y), {"x": np.array([[0.3, -0.2, 0.4]], np.float32)}, tmp_path)
    assert np.allclose(found, 1 / 3, rtol=1e-6)


def test_a_rounding_before_a_layer_norm(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.round_trip(b.input("x", [1, 4]), 1.0, 128)
    gamma, beta = b.constant(np.ones(4, np.float32)), b.constant(np.zeros(4, np.float32))
    y = b.add("LayerNormalization", x, gamma, beta, epsilon=1e-9)
    found = outputs(b.model(y=y), {"x": np.array([[0.2, 0.4, 9.3, -8.8]], np.float32)}, tmp_path)
    assert np.allclose(found, [[0, 0, 2**0.5, -(2**0.5)]], atol=1e-6)


def test_a_deleted_relu6_stops_at_6(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.round_trip(b.input("x", [4]), 6 / 255, 0)
    found = outputs(b.model(y=y), {"x": np.array([-3, 2, 10, 400], np.float32)}, tmp_path)
    assert np.allclose(found, [0, 2, 6, 6], rtol=2.0**-22, atol=0)


def test_an_output_of_a_product_as_integers_to_the_bit(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(4))
    x = b.round_trip(b.input("x", [64, 16]), 0.05, 131)
    weight = b.rng.integers(-127, 128, (16, 32))
    y = b.add("QuantizeLinear", product(b, x, weight, 1 / 512), *b.quantizer(0.0301, 17))
    feeds = {"x": b.rng.standard_normal((64, 16)).astype(np.float32)}
    found = outputs(b.model(y=y), feeds, tmp_path)
    integers = np.clip(np.rint(feeds["x"] / np.float32(0.05)) + 131, 0, 255) - 131
    exact = (integers @ weight) * (np.float64(np.float32(0.05)) / 512 / np.float64(np.float32(0.0301)))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-5, "no tie lies in the way"
    assert np.array_equal(found, np.clip(np.rint(exact) + 17, 0, 255).astype(np.uint8))


def inverted_residual(b: Builder) -> onnx.ModelProto:
    """MobileNetV2's block: expand, ReLU6, depthwise, ReLU6, project, and add the input."""
    x = b.input("x", [1, 8, 10, 10])
    y = b.add("Conv", x, b.normal(24, 8, 1, 1, scale=0.9), b.normal(24), kernel_shape=[1, 1])
    y = b.add("Clip", y, b.number(0.0), b.number(6.0))
    y = b.add(
        "Conv", y, b.normal(24, 1, 3, 3, scale=0.9), b.normal(24), kernel_shape=[3, 3], pads=[1] * 4, group=24
    )
    y = b.add("Clip", y, b.number(0.0), b.number(6.0))
    y = b.add("Conv", y, b.normal(8, 24, 1, 1, scale=0.3), b.normal(8), kernel_shape=[1, 1])
    return b.model(y=b.add("Add", y, x))


class _Images(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.images = iter(
            [{"x": rng.standard_normal((1, 8, 10, 10)).astype(np.float32) * 3} for _ in range(8)]
        )

    def get_next(self) -> Any:
        return next(self.images, None)


def test_a_mobilenet_block_through_onnx_runtimes_quantizer(tmp_path: Path) -> None:
    """The quantizer deletes both ReLU6; their clamps are those of the quantizers that it leaves."""
    source, path = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(inverted_residual(Builder(np.random.default_rng(0))), source)
    ort_quantization.quantize_static(
        str(source), str(path), _Images(), extra_options={"WeightSymmetric": True}
    )
    model = onnx.load(path)
    assert not any(node.op_type == "Clip" for node in model.graph.node)
    feeds = {"x": np.random.default_rng(2).standard_normal((1, 8, 10, 10)).astype(np.float32) * 3}
    (found,), (expected,) = (
        engine_of(model, tmp_path / "m.engine").run(feeds).values(),
        runtime(model, feeds).values(),
    )
    scales = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    step = float(scales[model.graph.node[-1].input[1]])
    off = np.abs(found - expected) / step
    # A tie of the first quantizer moves an output by less than a step: by one where it is rounded again.
    assert off.max() < 1.01
    assert (off > 0.5).mean() <= 0.005
