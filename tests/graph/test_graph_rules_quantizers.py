"""Quantizers as a contract: exact by default, with fewer roundings but all clamps where it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graph_models import Builder, Reduced, assert_close, reduced
from openwork.graph import read, reduce

CHANNELS = 8


def builder(seed: int = 3) -> Builder:
    return Builder(np.random.default_rng(seed))


def product(b: Builder, read_: str, k: int = CHANNELS, n: int = CHANNELS, scale: float = 0.01) -> str:
    weight = b.constant(b.rng.integers(-127, 128, (k, n)).astype(np.int8))
    return b.add("MatMul", read_, b.add("DequantizeLinear", weight, b.number(scale)))


def inputs(b: Builder, *names: str, rows: int = 7) -> dict[str, np.ndarray]:
    return {name: b.rng.standard_normal((rows, CHANNELS)).astype(np.float32) for name in names}


def on_grid(values: np.ndarray, scale: float, zero_point: int) -> bool:
    """Whether all values are dequantized from u8 on this grid."""
    integers = values / np.float32(scale) + zero_point
    near = np.rint(integers)
    return bool(np.all(np.abs(integers - near) < 1e-3) and near.min() >= 0 and near.max() <= 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_round_trip_between_float_operators_rounds_and_clamps(dtype: type) -> None:
    b = builder()
    x, r = b.input("x", ["rows", CHANNELS]), b.input("r", ["rows", CHANNELS])
    point = 100 if dtype is np.uint8 else -28
    y = b.add("Tanh", b.round_trip(b.add("Add", x, r), 0.01, point, dtype))
    found = reduced(b.model(y=y), inputs(b, "x", "r"))
    assert found.operators == ["Add", "Dequantize", "Tanh"]
    assert_close(found, 1e-5)


def test_an_output_of_the_graph_is_rounded_and_clamped() -> None:
    b = builder()
    x = b.input("x", ["rows", CHANNELS])
    y = b.round_trip(product(b, b.round_trip(x, 0.02, 128)), 0.05, 128)
    found = reduced(b.model(y=y), {"x": np.full((3, CHANNELS), 9.0, np.float32)})
    assert found.operators == ["Quantize", "Linear", "Dequantize"]
    assert on_grid(found.after["y"], 0.05, 128)
    assert_close(found, 0)


@pytest.mark.parametrize("rounding", ["exact", "relaxed"])
def test_a_deleted_relu6_still_stops_at_6(rounding: str) -> None:
    b = builder()
    y = b.round_trip(b.input("x", [4]), 6 / 255, 0)
    found = reduced(b.model(y=y), {"x": np.array([-3, 2, 10, 400], np.float32)}, rounding)
    assert np.allclose(found.after["y"], [0, 2, 6, 6], rtol=2.0**-22, atol=0)
    assert bool(found.notes) == (rounding == "relaxed")


def test_a_reader_on_another_grid_dequantizes_on_its_own() -> None:
    b = builder()
    x = b.input("x", ["rows", CHANNELS])
    integers = b.add("QuantizeLinear", x, *b.quantizer(0.02, 100))
    near, far = (b.add("DequantizeLinear", integers, *b.quantizer(*grid)) for grid in ((0.02, 100), (0.5, 3)))
    found = reduced(b.model(y=b.add("Tanh", near), z=far, p=product(b, far)), inputs(b, "x"))
    assert sorted(found.operators) == ["Dequantize", "Dequantize", "Linear", "Quantize", "Tanh"]
    linear = found.node("Linear")
    assert (linear.attributes["x_scale"].value, linear.attributes["x_zero_point"].value) == (0.5, 3)
    assert_close(found, 1e-5)


def test_signed_integers_move_for_those_who_dequantize_them() -> None:
    """The output keeps its signed integers; the product reads unsigned ones."""
    b = builder()
    x = b.input("x", ["rows", CHANNELS])
    pair = b.quantizer(0.02, -5, np.int8)
    integers = b.add("QuantizeLinear", x, *pair)
    y = product(b, b.add("DequantizeLinear", integers, *pair))
    found = reduced(b.model(y=y, q=integers), inputs(b, "x"))
    assert sorted(found.operators) == ["Linear", "Quantize", "onnx.QuantizeLinear"]
    assert found.after["q"].dtype == np.int8
    assert np.array_equal(found.after["q"], found.before["q"])
    assert found.node("Linear").attributes["x_zero_point"].value == 123
    assert_close(found, 1e-5)


def test_integers_of_the_caller_are_read_as_they_are() -> None:
    b = builder()
    x = b.input("x", ["rows", CHANNELS], TensorProto.UINT8)
    y = product(b, b.add("DequantizeLinear", x, *b.quantizer(0.02, 7)))
    feeds = {"x": b.rng.integers(0, 256, (5, CHANNELS)).astype(np.uint8)}
    found = reduced(b.model(y=y), feeds)
    assert found.operators == ["Linear"]
    assert_close(found, 1e-6)


def test_a_value_is_read_rounded_and_unrounded() -> None:
    b = builder()
    h = product(b, b.round_trip(b.input("x", ["rows", CHANNELS]), 0.02, 128))
    found = reduced(b.model(y=b.add("Tanh", h), z=b.round_trip(h, 0.05, 128)), inputs(b, "x"))
    assert sorted(found.operators) == ["Dequantize", "Linear", "Quantize", "Quantize", "Tanh"]
    assert on_grid(found.after["z"], 0.05, 128)
    assert_close(found, 1e-5)


def test_a_residual_is_read_as_integers() -> None:
    b = builder()
    x, r = b.input("x", ["rows", CHANNELS]), b.input("r", ["rows", CHANNELS])
    y = b.add("Add", product(b, b.round_trip(x, 0.02, 128)), b.round_trip(r, 0.03, 90))
    found = reduced(b.model(y=y), inputs(b, "x", "r"))
    assert sorted(found.operators) == ["Linear", "Quantize", "Quantize"]
    linear = found.node("Linear")
    assert linear.inputs[1].dtype.name == "UINT8"
    assert linear.attributes["residual_zero_point"].value == 90
    assert_close(found, 1e-6)


@pytest.mark.parametrize("moves", [[], ["Reshape"], ["Reshape", "Transpose"], ["Relu"]])
def test_a_second_rounding_on_the_same_grid_goes(moves: list[str]) -> None:
    b = builder()
    y = b.round_trip(b.input("x", ["rows", CHANNELS]), 0.02, 128)
    for move in moves:
        extra = [b.integers(-1, 2, CHANNELS // 2)] if move == "Reshape" else []
        y = b.add(move, y, *extra)
    found = reduced(b.model(y=b.add("Tanh", b.round_trip(y, 0.02, 128))), inputs(b, "x"))
    assert found.operators.count("Quantize") == 1
    assert_close(found, 1e-5)


def test_a_table_is_rounded_once_and_not_its_rows() -> None:
    b = builder()
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    words = b.round_trip(b.add("Gather", b.normal(20, 6, name="words"), ids), 0.02, 120)
    positions = b.add(
        "Slice",
        b.normal(9, 6),
        b.integers(0),
        b.add("Gather", b.add("Shape", ids), b.integers(1)),
        b.integers(0),
    )
    feeds = {"ids": b.rng.integers(0, 20, (2, 5))}
    found = reduced(b.model(y=b.add("Add", words, positions)), feeds)
    assert found.operators == ["EmbeddingSum"]
    assert_close(found, 1e-6)


def test_a_second_rounding_on_another_grid_is_a_table() -> None:
    b = builder()
    y = b.round_trip(b.input("x", ["rows", CHANNELS]), 0.02, 128)
    found = reduced(b.model(y=b.add("Tanh", b.round_trip(y, 0.5, 128))), inputs(b, "x"))
    assert found.operators == ["Quantize", "Lookup", "Dequantize", "Tanh"]
    table = found.node("Lookup").inputs[1].const_value.numpy().astype(int)
    read = (np.arange(256) - 128) * np.float32(0.02)
    assert np.array_equal(table, np.rint(read / np.float32(0.5)) + 128)
    assert_close(found, 1e-5)


@pytest.mark.parametrize("scale", [1e-39, 1e37])
def test_scales_that_lose_bits_are_left_to_onnx_runtime(scale: float) -> None:
    b = builder()
    y = b.round_trip(b.input("x", ["rows", CHANNELS]), scale, 128)
    graph, _, refusals = reduce(read(b.model(y=y)))
    assert [node.op_type for node in graph.graph] == ["QuantizeLinear", "DequantizeLinear"]
    reason = f"its scale is {float(np.float32(scale))}, which is not a normal number of at most 2^119"
    assert [refusal.reason for refusal in refusals] == [reason, reason]


def relaxed(model: onnx.ModelProto, feeds: dict[str, Any]) -> Reduced:
    return reduced(model, feeds, "relaxed")


def test_relaxed_keeps_both_clamps_of_a_product() -> None:
    b = builder()
    x = b.input("x", ["rows", CHANNELS])
    y = b.add("Tanh", b.round_trip(product(b, b.round_trip(x, 0.02, 128), scale=0.1), 0.05, 128))
    found = relaxed(b.model(y=y), inputs(b, "x"))
    assert found.operators == ["Quantize", "Linear", "Tanh"]
    node = found.node("Linear")
    assert node.attributes["activation"].value == "clip"
    assert node.attributes["alpha"].value == pytest.approx(-6.4)
    assert node.attributes["beta"].value == pytest.approx(6.35)
    assert found.notes == [
        "The rounding of 'QuantizeLinear_4' to steps of 0.05 is left out; its clamps at -6.4 and 6.35 stay."
    ]
    assert_close(found, 0.025 + 1e-5)


def test_relaxed_leaves_out_clamps_that_no_value_reaches() -> None:
    b = builder()
    y = b.add("Tanh", b.round_trip(b.add("Sigmoid", b.input("x", ["rows", CHANNELS])), 1 / 255, 0))
    found = relaxed(b.model(y=y), inputs(b, "x"))
    assert found.operators == ["Sigmoid", "Tanh"]
    assert found.notes == [
        "The rounding of 'QuantizeLinear_1' to steps of 0.00392157 is left out; "
        "its clamps at 0 and 1 too, since no value lies beyond them."
    ]
    assert_close(found, 1 / 510 + 1e-5)


def test_relaxed_keeps_what_costs_nothing() -> None:
    """Integers that a product reads, and those that it adds."""
    b = builder()
    x, r = b.input("x", ["rows", CHANNELS]), b.input("r", ["rows", CHANNELS])
    y = b.add("Add", product(b, b.round_trip(x, 0.02, 128)), b.round_trip(r, 0.03, 90))
    found = relaxed(b.model(y=y), inputs(b, "x", "r"))
    assert sorted(found.operators) == ["Linear", "Quantize", "Quantize"]
    assert found.notes == []


def test_another_rounding_is_refused() -> None:
    b = builder()
    model = read(b.model(y=b.add("Relu", b.input("x", [3]))))
    with pytest.raises(ValueError, match=r"^The rounding is 'exact' or 'relaxed', but it is 'fast'\.$"):
        reduce(model, rounding="fast")
