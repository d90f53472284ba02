"""Pools, reductions and borders of images: as native steps alone they give what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_models import Builder, reduced
from image_models import agrees, fed, quantized, quantized_weight

Attributes = dict[str, Any]

WINDOWS: dict[str, tuple[tuple[int, ...], Attributes]] = {
    "2x2": ((2, 8, 6, 8), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "3x3 padded": ((2, 8, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "without strides": ((1, 4, 5, 6), {"kernel_shape": [3, 2]}),
    "pads of one side": ((1, 4, 5, 6), {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}),
    "SAME_UPPER": ((1, 4, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((1, 4, 7, 6), {"kernel_shape": [4, 3], "strides": [2, 1], "auto_pad": "SAME_LOWER"}),
    "VALID": ((1, 4, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}),
    "counted up": ((1, 4, 8, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "counted up with pads": (
        (1, 4, 7, 8),
        {"kernel_shape": [3, 3], "strides": [3, 2], "pads": [1] * 4, "ceil_mode": 1},
    ),
    "counted up, last left out": ((1, 4, 4, 5), {"kernel_shape": [1, 2], "strides": [3, 4], "ceil_mode": 1}),
    "the whole image": ((3, 5, 4, 6), {"kernel_shape": [4, 6]}),
}
PIXEL = "the whole image"
"""One pixel is left, whose channels are moved by another shape."""
DILATED: dict[str, tuple[tuple[int, ...], Attributes]] = {
    "dilation": ((1, 4, 9, 9), {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    "dilation and pads": (
        (1, 4, 9, 9),
        {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2] * 4, "strides": [2, 2]},
    ),
}


def builder(opset: int = 20) -> Builder:
    return Builder(np.random.default_rng(1), opset)


def normal(b: Builder, *shape: int) -> dict[str, np.ndarray]:
    b.input("x", ["n", *shape[1:]])
    return {"x": b.rng.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("form", {**WINDOWS, **DILATED})
def test_every_max_pool_of_floats(form: str, opset: int, tmp_path: Path) -> None:
    shape, attributes = {**WINDOWS, **DILATED}[form]
    b = builder(opset)
    feeds = normal(b, *shape)
    found = agrees(b.model(y=b.add("MaxPool", "x", **attributes)), feeds, tmp_path)
    assert found.steps == [
        "to_channels_last",
        "max_pool",
        "reshape" if form == PIXEL else "to_channels_first",
    ]


@pytest.mark.parametrize("pool", ["MaxPool", "GlobalMaxPool"])
def test_a_pool_of_a_product_is_one_of_its_integers(pool: str, tmp_path: Path) -> None:
    """The quantizer behind the pool is the product's own: no floats are stored in between."""
    b = builder()
    x, feeds = fed(b, 2, 8, 9, 9)
    weight, _ = quantized_weight(b, (16, 8, 3, 3))
    made = b.add("Relu", b.add("Conv", x, weight, pads=[1] * 4))
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4} if pool == "MaxPool" else {}
    pooled = b.add(pool, made, **window)
    found = agrees(b.model(y=quantized(b, pooled, 0.02, 3)), feeds, tmp_path)
    back = "to_channels_first" if pool == "MaxPool" else "reshape"
    name = "max_pool" if pool == "MaxPool" else "global_max_pool"
    assert found.steps == ["to_channels_last", "conv", name, back]


def test_a_product_that_is_read_besides_keeps_its_floats(tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 2, 8, 9, 9)
    weight, _ = quantized_weight(b, (16, 8, 3, 3))
    made = b.add("Conv", x, weight, pads=[1] * 4)
    pooled = b.add("MaxPool", made, kernel_shape=[2, 2], strides=[2, 2])
    found = agrees(b.model(y=quantized(b, pooled), z=made), feeds, tmp_path)
    kept = [step for step in found.steps if not step.startswith("to_channels")]
    assert kept == ["conv", "max_pool", "quantize"]


@pytest.mark.parametrize("form", {**WINDOWS, **DILATED})
def test_every_max_pool_of_integers(form: str, tmp_path: Path) -> None:
    """The largest of the integers is the integer of the largest; equal quantizers round nothing again."""
    shape, attributes = {**WINDOWS, **DILATED}[form]
    b = builder()
    x, feeds = fed(b, *shape)
    y = quantized(b, b.add("MaxPool", x, **attributes), 0.05, 117)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == [
        "to_channels_last",
        "max_pool",
        "reshape" if form == PIXEL else "to_channels_first",
    ]


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("form", WINDOWS)
def test_every_average_pool_of_floats(form: str, opset: int, include: int, tmp_path: Path) -> None:
    shape, attributes = WINDOWS[form]
    b = builder(opset)
    feeds = normal(b, *shape)
    y = b.add("AveragePool", "x", count_include_pad=include, **attributes)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == [
        "to_channels_last",
        "average_pool",
        "reshape" if form == PIXEL else "to_channels_first",
    ]


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("form", WINDOWS)
def test_every_average_pool_of_integers(form: str, include: int, tmp_path: Path) -> None:
    shape, attributes = WINDOWS[form]
    b = builder()
    x, feeds = fed(b, *shape)
    # Means of a few integers meet the middle between two steps of the same scale: one that has none.
    y = quantized(b, b.add("AveragePool", x, count_include_pad=include, **attributes), 0.0371, 120)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == [
        "to_channels_last",
        "average_pool",
        "reshape" if form == PIXEL else "to_channels_first",
    ]


@pytest.mark.parametrize("dilations", [[1, 1], [2, 1]])
def test_an_average_pool_with_dilation(dilations: list[int], tmp_path: Path) -> None:
    b = builder()
    feeds = normal(b, 1, 4, 7, 6)
    y = b.add("AveragePool", "x", kernel_shape=[2, 2], dilations=dilations)
    assert "average_pool" in agrees(b.model(y=y), feeds, tmp_path).steps


GLOBAL: dict[str, tuple[str, Attributes, bool]] = {
    "GlobalAveragePool": ("GlobalAveragePool", {}, True),
    "GlobalMaxPool": ("GlobalMaxPool", {}, True),
    "ReduceMean": ("ReduceMean", {"axes": [2, 3]}, True),
    "ReduceMean from behind": ("ReduceMean", {"axes": [-1, -2]}, True),
    "ReduceMean that drops": ("ReduceMean", {"axes": [2, 3], "keepdims": 0}, False),
    "ReduceMax": ("ReduceMax", {"axes": [2, 3]}, True),
    "ReduceMax that drops": ("ReduceMax", {"axes": [-2, -1], "keepdims": 0}, False),
}


def over_pixels(b: Builder, x: str, name: str) -> str:
    """From opset 18 on axes are an input."""
    op, attributes, _ = GLOBAL[name]
    axes = attributes.get("axes") if b.opset >= 18 else None
    given = {key: value for key, value in attributes.items() if key != "axes" or axes is None}
    return b.add(op, x, *([b.integers(*axes)] if axes else []), **given)


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("name", GLOBAL)
def test_every_pool_over_all_pixels(name: str, opset: int, tmp_path: Path) -> None:
    b = builder(opset)
    feeds = normal(b, 3, 8, 5, 7)
    found = agrees(b.model(y=over_pixels(b, "x", name)), feeds, tmp_path)
    assert "fallback" not in found.steps
    assert any("pool" in step for step in found.steps)


@pytest.mark.parametrize("name", GLOBAL)
def test_every_pool_over_all_pixels_of_integers(name: str, tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 3, 8, 5, 7)
    found = agrees(b.model(y=quantized(b, over_pixels(b, x, name), 0.0137, 128)), feeds, tmp_path)
    assert any("pool" in step for step in found.steps)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("ceil_mode", [0, 1])
def test_pools_of_a_free_height_and_width(op: str, ceil_mode: int, tmp_path: Path) -> None:
    """How many windows of ceil_mode there are depends on the size, which no attribute says."""
    b = builder()
    b.input("x", ["n", 8, "height", "width"])
    y = b.add(op, "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=ceil_mode)
    model = b.model(y=y)
    for height, width in ((5, 5), (8, 13)):
        feeds = {"x": b.rng.standard_normal((2, 8, height, width)).astype(np.float32)}
        found = agrees(model, feeds, tmp_path, strict=not ceil_mode, shapes=[[2, height, width]])
        assert ("fallback" in found.steps) == bool(ceil_mode)
    if ceil_mode:
        assert "its windows are counted up (ceil_mode) along a free size" in found.reasons[0]


def test_a_pool_over_a_free_height_and_width(tmp_path: Path) -> None:
    b = builder()
    b.input("x", ["n", 8, "height", "width"])
    weight, _ = quantized_weight(b, (6, 8), name="head.weight")
    pooled = b.add("Flatten", b.add("GlobalAveragePool", b.round_trip("x", 0.05, 117)))
    y = b.add("Gemm", b.round_trip(pooled, 0.01, 120), weight, b.normal(6), transB=1)
    feeds = {"x": b.rng.standard_normal((2, 8, 6, 9)).astype(np.float32)}
    found = agrees(b.model(y=y), feeds, tmp_path, shapes=[[2, 6, 9]])
    assert found.steps.count("global_average_pool") == 1
    assert found.steps[-1] == "linear"


def test_the_places_of_the_largest_are_left_to_onnx_runtime() -> None:
    b = builder()
    feeds = normal(b, 1, 4, 6, 6)
    y = b.add("MaxPool", "x", kernel_shape=[2, 2])
    b.nodes[-1].output.append("places")
    found = reduced(b.model(y=y, places="places"), feeds)
    assert found.operators == ["onnx.MaxPool"]
    assert "its second output, the places of the largest, is read" in found.left[0]


@pytest.mark.parametrize(("axes", "keep"), [([1], 1), ([1, 2, 3], 1), ([0], 1)])
def test_means_over_other_axes_stay(axes: list[int], keep: int) -> None:
    b = builder()
    feeds = normal(b, 2, 4, 6, 6)
    found = reduced(b.model(y=b.add("ReduceMean", "x", b.integers(*axes), keepdims=keep)), feeds)
    assert found.operators == ["onnx.ReduceMean"]


PADS: dict[str, tuple[list[int], float]] = {
    "zeros": ([0, 0, 1, 1, 0, 0, 1, 1], 0.0),
    "one side": ([0, 0, 0, 2, 0, 0, 1, 0], 0.0),
    "channels": ([0, 1, 0, 0, 0, 3, 1, 0], 0.0),
    "another number": ([0, 0, 1, 0, 0, 0, 0, 2], 0.75),
}


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("name", PADS)
def test_every_border_of_floats(name: str, opset: int, tmp_path: Path) -> None:
    pads, number = PADS[name]
    b = builder(opset)
    feeds = normal(b, 2, 4, 5, 6)
    y = b.add("Pad", "x", b.integers(*pads), *([b.number(number)] if number else []))
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "pad", "to_channels_first"]


@pytest.mark.parametrize("name", PADS)
def test_every_border_in_front_of_a_convolution(name: str, tmp_path: Path) -> None:
    """One of zeros alone is the convolution's own."""
    pads, number = PADS[name]
    b = builder()
    x, feeds = fed(b, 2, 4, 5, 6)
    y = b.round_trip(b.add("Pad", x, b.integers(*pads), b.number(number)), 0.05, 117)
    weight, _ = quantized_weight(b, (6, 4 + pads[1] + pads[5], 3, 3))
    found = agrees(b.model(y=quantized(b, b.add("Conv", y, weight))), feeds, tmp_path)
    own = name in ("zeros", "one side")
    middle = ["conv"] if own else ["pad", "conv"]
    assert found.steps == ["to_channels_last", *middle, "to_channels_first"]


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_borders_of_another_mode_stay(mode: str) -> None:
    b = builder()
    feeds = normal(b, 1, 4, 5, 5)
    found = reduced(b.model(y=b.add("Pad", "x", b.integers(*PADS["zeros"][0]), mode=mode)), feeds)
    assert found.operators == ["onnx.Pad"]
    assert f"its border is of the mode {mode}" in found.left[0]


def test_a_border_below_zero_stays() -> None:
    b = builder()
    feeds = normal(b, 1, 4, 5, 5)
    found = reduced(b.model(y=b.add("Pad", "x", b.integers(0, 0, -1, 0, 0, 0, 0, 0))), feeds)
    assert found.operators == ["onnx.Pad"]
    assert "cut something off" in found.left[0]
