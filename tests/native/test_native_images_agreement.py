"""Steps on images and elements against ONNX Runtime, which computes the same in float between Q/DQ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from native_steps import add_step
from openwork import _native as native

X, Y = (0.05, 117), (0.043, 131)
FLOAT_BOUND = 2.0**-22
"""Relative to the largest number: sums of up to 64 numbers in another order, and two roundings more."""


def last(x: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x


def onnx_runtime(
    op: str, arrays: Sequence[Any], after: str = "", quantized: bool = True, **given: Any
) -> Any:
    """The node on dequantized arrays, what follows it, and its result quantized; or all of it on floats."""
    nodes, names = [], [f"x{index}" for index in range(len(arrays))]
    values = [f"{name}.f" if quantized else name for name in names]
    if quantized:
        nodes += [
            helper.make_node("DequantizeLinear", [name, "xs", "xz"], [value])
            for name, value in zip(names, values, strict=True)
        ]
    nodes.append(helper.make_node(op, values, ["m"], **given))
    if after:
        nodes.append(helper.make_node(after, ["m"], ["n"]))
    made = "n" if after else "m"
    nodes.append(
        helper.make_node("QuantizeLinear", [made, "ys", "yz"], ["y"])
        if quantized
        else helper.make_node("Identity", [made], ["y"])
    )
    dtype = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    tensors = [
        helper.make_tensor(f"{name}{kind}", elem, [], [number])
        for name, pair in (("x", X), ("y", Y))
        for kind, elem, number in zip("sz", (TensorProto.FLOAT, TensorProto.UINT8), pair, strict=True)
    ]
    inputs = [helper.make_tensor_value_info(n, dtype, a.shape) for n, a in zip(names, arrays, strict=True)]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", dtype, None)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def ours(op: str, arrays: Sequence[Any], out: Sequence[int], names: str = "x", **given: Any) -> Any:
    """One step on arrays with channels last."""
    p = native.Program(native.isas()[0])
    kinds = ["u8" if array.dtype == np.uint8 else "f32" for array in arrays]
    handles = {n: p.value(k, list(a.shape)) for n, k, a in zip(names, kinds, arrays, strict=True)}
    y = p.value("u8" if "y_scale" in given or given.pop("made", "") == "u8" else "f32", list(out))
    add_step(p, op, "s", **handles, y=y, **given)
    p.finish(list(handles.values()), [y])
    return native.Context(p, 2).run(list(arrays))[0]


def quantizers(*names: str) -> dict[str, Any]:
    pairs = [(name, X) for name in names] + [("y", Y)]
    return {k: v for name, (s, z) in pairs for k, v in ((f"{name}_scale", s), (f"{name}_zero_point", z))}


def assert_one_step(found: Any, expected: Any) -> None:
    """The reciprocals of the scale and of the count round elsewhere, which shows at ties alone."""
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.98


def assert_near(found: Any, expected: Any) -> None:
    assert np.abs(found - expected).max() <= FLOAT_BOUND * np.abs(expected).max()


def numbers(dtype: Any, *shape: int) -> Any:
    rng = np.random.default_rng(sum(shape))
    if dtype is np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


WINDOWS = [
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [2, 0, 1, 1], "dilations": [2, 1]},
    {"kernel_shape": [7, 7], "strides": [1, 1], "pads": [3, 3, 3, 3]},
]


def window(given: dict[str, Any]) -> dict[str, Any]:
    own = {"dilations": [1, 1], **given}
    return {"kernel": own.pop("kernel_shape"), **own}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("given", WINDOWS, ids=lambda given: str(given["kernel_shape"]))
def test_max_pools(given: dict[str, Any], dtype: Any) -> None:
    x = numbers(dtype, 2, 20, 15, 13)
    expected = last(onnx_runtime("MaxPool", [x], quantized=False, **given)) if dtype is np.float32 else None
    if expected is None:
        floats = onnx_runtime("MaxPool", [x.astype(np.float32)], quantized=False, **given)
        expected = last(floats).astype(np.uint8)
    found = ours(
        "max_pool", [last(x)], expected.shape, made="u8" if dtype is np.uint8 else "", **window(given)
    )
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("given", WINDOWS, ids=lambda given: str(given["kernel_shape"]))
def test_average_pools(given: dict[str, Any], quantized: bool, counted: int) -> None:
    x = numbers(np.uint8 if quantized else np.float32, 2, 20, 15, 13)
    expected = last(onnx_runtime("AveragePool", [x], quantized=quantized, count_include_pad=counted, **given))
    own = window(given) | {"count_include_pad": counted} | (quantizers("x") if quantized else {})
    found = ours("average_pool", [last(x)], expected.shape, **own)
    (assert_one_step if quantized else assert_near)(found, expected)


@pytest.mark.parametrize(("size", "end", "over"), [(7, 0, 1), (8, 1, 1), (9, 1, 0)])
def test_windows_that_hang_over_in_ceil_mode_count_no_pixel_there(size: int, end: int, over: int) -> None:
    x = numbers(np.float32, 1, 5, size, size)
    given = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, end, end]}
    pool = {"ceil_mode": 1, "count_include_pad": 1}
    expected = last(onnx_runtime("AveragePool", [x], quantized=False, **pool, **given))
    own = window(given) | {"count_include_pad": 1, "overhang": [over, over]}
    own["pads"] = [1, 1, end + over, end + over]
    assert_near(ours("average_pool", [last(x)], expected.shape, **own), expected)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(op: str, quantized: bool) -> None:
    x = numbers(np.uint8 if quantized else np.float32, 2, 70, 8, 8)
    average = op == "GlobalAveragePool"
    if quantized and not average:
        expected = last(x).max((1, 2), keepdims=True)
    else:
        expected = last(onnx_runtime(op, [x], quantized=quantized))
    given = quantizers("x") if quantized and average else {"made": "u8"} if quantized else {}
    step = "global_average_pool" if average else "global_max_pool"
    found = ours(step, [last(x)], expected.shape, **given)
    if not average:
        assert found.tobytes() == expected.tobytes()
    else:
        (assert_one_step if quantized else assert_near)(found, expected)


@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("after", ["", "Relu"])
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_sums_and_products_of_bytes(op: str, after: str, pixel: bool) -> None:
    a = numbers(np.uint8, 2, 33, 6, 5)
    b = numbers(np.uint8, 2, 33, *((1, 1) if pixel else (6, 5)))
    expected = last(onnx_runtime(op, [a, b], after))
    given = quantizers("a", "b") | ({"activation": "relu"} if after else {})
    step = "add" if op == "Add" else "multiply"
    assert_one_step(ours(step, [last(a), last(b)], expected.shape, names="ab", **given), expected)


def test_p_relu() -> None:
    x, slope = numbers(np.float32, 4, 7, 19), numbers(np.float32, 19)
    expected = np.where(x < 0, slope * x, x)
    assert ours("p_relu", [x], x.shape, slope=slope).tobytes() == expected.tobytes()


def test_softmax() -> None:
    x = 5 * numbers(np.float32, 6, 1000)
    expected = onnx_runtime("Softmax", [x], quantized=False, axis=-1)
    # exp is off by 2e-7, and so is the sum of positive numbers; three roundings follow.
    assert (np.abs(ours("softmax", [x], x.shape) - expected) <= 8e-7 * expected).all()


@pytest.mark.parametrize("channels", [1, 3, 4, 21, 64])
def test_moves_of_channels_and_the_first_quantizer(channels: int) -> None:
    x = numbers(np.float32, 2, channels, 13, 9)
    assert ours("to_channels_last", [x], last(x).shape).tobytes() == last(x).tobytes()
    assert ours("to_channels_first", [last(x)], x.shape).tobytes() == x.tobytes()
    expected = np.clip(np.rint(x / np.float32(Y[0])) + Y[1], 0, 255).astype(np.uint8)
    found = ours("to_channels_last", [x], last(x).shape, y_scale=Y[0], y_zero_point=Y[1])
    assert_one_step(found, last(expected))
