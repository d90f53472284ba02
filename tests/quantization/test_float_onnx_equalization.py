"""Cross-layer equalization of float ONNX graphs: the function stays, quantizing it gets better."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from openwork.graph.reader import read
from openwork.quantization import QuantizationOptions, quantize
from openwork.quantization.corrections.equalization import Equalized
from openwork.quantization.float_onnx import quantize_onnx
from openwork.quantization.float_onnx.equalization import equalize

Array = np.ndarray[Any, Any]


def _net(between: str = "Relu", spread: float = 1.0) -> onnx.ModelProto:
    """Conv, activation, depthwise Conv, Relu, ConvTranspose, pool, Flatten, two Gemm; `spread` scales some
    channels up and their readers down.
    """
    rng = np.random.default_rng(0)
    by = np.where(np.arange(8) % 2, spread, 1.0).astype(np.float32)
    stored = {
        "w1": rng.standard_normal((8, 4, 3, 3)) * by[:, None, None, None],
        "c1": rng.standard_normal(8) * by,
        "w2": rng.standard_normal((8, 1, 3, 3)) / by[:, None, None, None],
        "wt": rng.standard_normal((8, 3, 2, 2)),
        "wf": rng.standard_normal((54, 10)) * 0.1,
        "cf": rng.standard_normal(10),
        "wg": rng.standard_normal((5, 10)),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "c1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node(between, ["a", "low", "high"] if between == "Clip" else ["a"], ["b"], "between"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "depthwise", group=8),
        helper.make_node("Relu", ["c"], ["d"], "relu"),
        helper.make_node("ConvTranspose", ["d", "wt"], ["e"], "up", group=2, output_padding=[0, 0]),
        helper.make_node("MaxPool", ["e"], ["f"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["f"], ["g"], "flatten"),
        helper.make_node("Gemm", ["g", "wf", "cf"], ["h"], "hidden"),
        helper.make_node("Relu", ["h"], ["i"], "relu2"),
        helper.make_node("Gemm", ["i", "wg"], ["y"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _images() -> Array:
    return np.random.default_rng(1).standard_normal((32, 4, 8, 8)).astype(np.float32)


def _run(model: onnx.ModelProto) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": _images()})[0])


def _error(model: onnx.ModelProto, options: QuantizationOptions) -> float:
    wanted = _run(model)
    return float(np.linalg.norm(_run(quantize_onnx(model, _images(), options).model) - wanted))


def _rows(found: tuple[Equalized, ...]) -> dict[tuple[str, str], bool]:
    return {(row.first, row.second): row.done for row in found}


def test_every_pair_is_found_and_spread_channels_cost_nothing_then() -> None:
    weights = QuantizationOptions(style="tensorrt", observer="max", equalize="weights")
    plain = QuantizationOptions(style="tensorrt", observer="max")
    net = _net(spread=64.0)
    rows = _rows(quantize_onnx(net, _images(), weights).equalized)
    assert rows == {
        ("first", "depthwise"): True,
        ("depthwise", "up"): True,
        ("up", "hidden"): True,
        ("hidden", "last"): True,
    }
    # Half the channels have six bits less than they need.
    assert _error(net, weights) < _error(net, plain) / 2


def test_the_float_function_stays() -> None:
    for between in ("Relu", "LeakyRelu"):
        net = _net(between, spread=64.0)
        model = read(net)
        assert all(row.done for row in equalize(model.graph))
        found, wanted = _run(ir.to_proto(model)), _run(net)
        # Five layers, sums of at most 54 products: 16 sqrt(k) 2^-24 for each, as in folding.tolerance.
        assert np.linalg.norm(found - wanted) <= 16 * 5 * 54**0.5 * 2.0**-24 * np.linalg.norm(wanted)
        assert not np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("between", "reason"), [("Clip", "clips at a fixed number"), ("Sigmoid", "Sigmoid lies between")]
)
def test_other_functions_are_refused(between: str, reason: str) -> None:
    options = QuantizationOptions(style="tensorrt", equalize="weights")
    found = quantize_onnx(_net(between), _images(), options).equalized
    (refused,) = (row for row in found if not row.done)
    assert (refused.first, refused.second) == ("first", "depthwise")
    assert reason in refused.reason


def test_options_for_torch_alone_are_refused() -> None:
    with pytest.raises(ValueError, match='use equalize="weights"'):
        quantize(_net(), _images(), QuantizationOptions(equalize="activations"))
    with pytest.raises(ValueError, match="Biases are corrected in torch models only"):
        quantize(_net(), _images(), QuantizationOptions(correct_bias=True))
