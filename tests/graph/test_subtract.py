"""Differences and quotients: sums and products of what is negated or turned over, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_models import Builder, reduced, runtime
from image_models import agrees, built, fed, quantized
from openwork import build, load


def builder() -> Builder:
    return Builder(np.random.default_rng(11))


@pytest.mark.parametrize("integers", [False, True])
def test_of_two_values(integers: bool, tmp_path: Path) -> None:
    b = builder()
    (x, feeds), (z, more) = fed(b, 2, 4, 5, 6, free=()), fed(b, 2, 4, 5, 6, name="z", free=())
    y = b.add("Sub", x, z)
    y = quantized(b, y, 0.0437, 110) if integers else y
    found = agrees(b.model(y=y), {**feeds, **more}, tmp_path)
    assert found.steps == ["quantize", "quantize", "multiply", "add"]


def test_of_floats_to_the_bit(tmp_path: Path) -> None:
    b = builder()
    x, z = b.input("x", ["n", 7]), b.input("z", ["n", 7])
    proto = b.model(y=b.add("Sub", x, z))
    feeds = {name: b.rng.standard_normal((3, 7)).astype(np.float32) for name in "xz"}
    found = built(proto, feeds, tmp_path)
    np.testing.assert_array_equal(found.outputs["y"], runtime(proto, feeds)["y"])


@pytest.mark.parametrize("image_first", [True, False])
def test_of_images_and_a_pixel_of_each(image_first: bool, tmp_path: Path) -> None:
    b = builder()
    x = b.input("x", ["n", 4, 5, 6])
    mean = b.add("GlobalAveragePool", x)
    pair = (x, mean) if image_first else (mean, x)
    proto = b.model(y=b.add("Relu", b.add("Sub", *pair)))
    feeds = {"x": b.rng.standard_normal((2, 4, 5, 6)).astype(np.float32)}
    found = built(proto, feeds, tmp_path)
    # A mean of 30 numbers below 4, in another order.
    np.testing.assert_allclose(found.outputs["y"], runtime(proto, feeds)["y"], rtol=0, atol=30 * 4 * 2.0**-24)


@pytest.mark.parametrize("numbers", [(1,), (6,)])
@pytest.mark.parametrize("op", ["Sub", "Div"])
@pytest.mark.parametrize("value_first", [True, False])
def test_with_a_constant(numbers: tuple[int, ...], op: str, value_first: bool, tmp_path: Path) -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", 5, 6]))
    held = b.constant((np.abs(b.rng.standard_normal(numbers)) + 0.5).astype(np.float32))
    proto = b.model(y=b.add("Relu", b.add(op, *((x, held) if value_first else (held, x)))))
    feeds = {"x": (np.abs(b.rng.standard_normal((2, 5, 6))) + 0.5).astype(np.float32)}
    divides_a_constant = op == "Div" and not value_first
    found = built(proto, feeds, tmp_path, strict=not divides_a_constant)
    expected = runtime(proto, feeds)["y"]
    if divides_a_constant:
        assert "it divides a constant by computed values" in found.reasons[0]
    if op == "Sub":
        np.testing.assert_array_equal(found.outputs["y"], expected)
    else:
        # 1 / c and the product are rounded once each, the quotient once.
        np.testing.assert_allclose(found.outputs["y"], expected, rtol=3 * 2.0**-24)


def test_a_chain_of_numbers_between_native_steps(tmp_path: Path) -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", 5, 6]))
    for op, number in (("Mul", 3.0), ("Add", 0.5), ("Div", 4.0), ("Sub", 0.25)):
        x = b.add(op, x, b.number(number))
    proto = b.model(y=b.add("Relu", x))
    feeds = {"x": b.rng.standard_normal((2, 5, 6)).astype(np.float32)}
    found = built(proto, feeds, tmp_path)
    assert found.steps == ["relu", "multiply", "add", "multiply", "add"]
    np.testing.assert_array_equal(found.outputs["y"], runtime(proto, feeds)["y"])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_one_number_leaves_free_sizes_free(op: str, tmp_path: Path) -> None:
    b = builder()
    proto = b.model(y=b.add("Relu", b.add(op, b.input("x", ["n", "w"]), b.number(0.5))))
    path = tmp_path / "m.engine"
    build(proto, path, strict=True, progress=False, threads=1, timing_cache=tmp_path / "t.json")
    engine = load(path, threads=1)
    assert engine.inputs[0].shape == ("n", "w")
    for width in (1, 5, 7):
        feeds = {"x": b.rng.standard_normal((3, width)).astype(np.float32)}
        np.testing.assert_array_equal(engine.run(feeds)["y"], runtime(proto, feeds)["y"])


def test_other_shapes_stay_with_their_reason() -> None:
    b = builder()
    x, z = b.input("x", ["n", 5]), b.input("z", [1, 5])
    proto = b.model(y=b.add("Sub", b.add("Relu", x), b.add("Relu", z)))
    found = reduced(proto, {"x": np.ones((3, 5), np.float32), "z": np.ones((1, 5), np.float32)})
    assert found.operators[-1] == "onnx.Sub"
    assert "subtract: its operands do not have the same known shape" in found.left[0]
