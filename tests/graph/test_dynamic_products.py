"""Dynamically quantized products: every way to write one becomes a DynamicLinear, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto, helper

from graph_models import Builder, Reduced, assert_close, reduced
from openwork.graph.reference import dynamic_quantizer

K, N = 12, 6
SCALE = np.float32(0.02)


@dataclass
class Product:
    """Parts of a dynamically quantized product, each of which a test may change."""

    integers: np.ndarray
    zero: np.ndarray | None = None
    scale: np.ndarray | np.float32 = SCALE
    feed: np.ndarray | None = None

    def sums(self, b: Builder) -> tuple[str, str]:
        """The sums as floats, and the scale of x."""
        x = b.input("x", ["rows", K])
        made = ["x_u8", "x_scale", "x_zero"]
        b.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], made, "quantize"))
        zero = [] if self.zero is None else [b.constant(self.zero)]
        sums = b.add("MatMulInteger", "x_u8", b.constant(self.integers, "layer.weight"), "x_zero", *zero)
        return b.add("Cast", sums, to=TensorProto.FLOAT), "x_scale"

    def run(self, spelling: Callable[[Builder, str, str, str], str]) -> Reduced:
        b = Builder(np.random.default_rng(0))
        sums, scale = self.sums(b)
        y = spelling(b, sums, scale, b.constant(self.scale))
        feed = np.random.default_rng(1).normal(size=(5, K)) if self.feed is None else self.feed
        return reduced(b.model(y=y), {"x": feed.astype(np.float32)})


def scales_first(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
    return b.add("Mul", sums, b.add("Mul", x_scale, w_scale))


def one_by_one(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
    return b.add("Mul", b.add("Mul", sums, x_scale), w_scale)


def weight_first(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
    return b.add("Mul", x_scale, b.add("Mul", w_scale, sums))


SPELLINGS = (scales_first, one_by_one, weight_first)


def signed(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-127, 128, (K, N)).astype(np.int8)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("scale", [np.float32(0.02), np.linspace(0.01, 0.02, N, dtype=np.float32)])
def test_every_spelling_is_one_product(spelling: Callable[..., str], scale: np.ndarray) -> None:
    found = Product(signed(), scale=scale).run(spelling)
    assert found.operators == ["DynamicLinear"]
    assert_close(found, 1e-6)


def test_bias_activation_and_residual_go_into_it() -> None:
    def spelling(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
        biased = b.add("Add", scales_first(b, sums, x_scale, w_scale), b.normal(N))
        return b.add("Add", b.add("Relu", biased), b.input("r", ["rows", N]))

    b = Builder(np.random.default_rng(0))
    sums, scale = Product(signed()).sums(b)
    model = b.model(y=spelling(b, sums, scale, b.number(0.02)))
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(size=(4, K)), "r": rng.normal(size=(4, N))}
    found = reduced(model, {name: value.astype(np.float32) for name, value in feeds.items()})
    assert found.operators == ["DynamicLinear"]
    assert_close(found, 1e-6)


@pytest.mark.parametrize(
    "zero", [np.uint8(128), np.full(N, 128, np.uint8), np.arange(100, 100 + N, dtype=np.uint8)]
)
def test_unsigned_weights_lose_their_zero_point(zero: np.ndarray) -> None:
    integers = np.random.default_rng(3).integers(0, 256, (K, N)).astype(np.uint8)
    found = Product(integers, zero=zero).run(scales_first)
    assert set(found.operators) <= {"DynamicLinear", "Add"}
    assert_close(found, 1e-6)


@pytest.mark.parametrize(
    "feed",
    [
        np.zeros((3, K)),
        np.abs(np.random.default_rng(4).normal(size=(3, K))),
        -np.abs(np.random.default_rng(5).normal(size=(3, K))),
        np.full((1, K), 1e-30),
    ],
)
def test_ranges_of_one_sign_hold_zero(feed: np.ndarray) -> None:
    assert_close(Product(signed(), feed=feed).run(scales_first), 1e-6)


def test_a_range_that_says_nothing_has_scale_one() -> None:
    nothing = [np.array([1.0, np.inf]), np.array([1e-44]), np.array([np.nan]), np.zeros(0), np.zeros(3)]
    assert [dynamic_quantizer(x.astype(np.float32)) for x in nothing] == [(1.0, 0)] * len(nothing)
    assert dynamic_quantizer(np.array([np.nan, -1.0, 2.0], np.float32)) == (np.float32(3 / 255), 85)


def test_other_products_of_integers_stay() -> None:
    def without_scale(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
        return b.add("Mul", sums, w_scale)

    def scaled_twice(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
        return b.add("Mul", b.add("Mul", sums, x_scale), b.add("Mul", x_scale, w_scale))

    def scaled_by_a_value(b: Builder, sums: str, x_scale: str, w_scale: str) -> str:
        return b.add("Mul", b.add("Mul", sums, b.input("s", [1])), b.add("Mul", x_scale, w_scale))

    for spelling in (without_scale, scaled_twice):
        found = Product(signed()).run(spelling)
        assert "onnx.MatMulInteger" in found.operators
        assert_close(found, 1e-6)
    b = Builder(np.random.default_rng(0))
    sums, scale = Product(signed()).sums(b)
    feeds = {"x": np.ones((2, K), np.float32), "s": np.ones(1, np.float32)}
    found = reduced(b.model(y=scaled_by_a_value(b, sums, scale, b.number(0.02))), feeds)
    assert "onnx.MatMulInteger" in found.operators


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"scale": np.ones((N, 1), np.float32)}, "do not lie along its output channels"),
        ({"scale": np.float32(-0.5)}, "not all positive and finite"),
        ({"integers": np.ones((2, K, N), np.int8)}, "its weight is not a constant matrix"),
    ],
)
def test_what_no_native_product_is_has_a_reason(changed: dict[str, np.ndarray], reason: str) -> None:
    product = Product(**{"integers": signed()[:, :N], **changed})
    if changed.get("scale") is not None and changed["scale"].ndim == 2:
        product.feed = np.random.default_rng(1).normal(size=(N, K))
    found = product.run(scales_first)
    assert any(reason in each for each in found.reasons), found.reasons
    assert_close(found, 1e-6)


def test_rows_of_a_table_are_dequantized_with_it() -> None:
    b = Builder(np.random.default_rng(0))
    table = np.random.default_rng(6).integers(0, 256, (9, 4)).astype(np.uint8)
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    rows = b.add("Gather", b.constant(table), ids)
    y = b.add("DequantizeLinear", rows, *b.quantizer(0.1, 120))
    found = reduced(b.model(y=y), {"ids": np.array([[0, 8, 3]])})
    assert "dequantize the table and not its rows" in found.rules
    assert_close(found, 1e-7)
