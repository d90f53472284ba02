"""Convolutions in every spelling: as native steps alone they give what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graph_models import Builder, reduced
from image_models import Weight, agrees, built, fed, integer_bias, quantized, quantized_weight

Attributes = dict[str, Any]
MOVED = ["to_channels_last", "conv", "to_channels_first"]


def builder(seed: int = 0, opset: int = 20) -> Builder:
    return Builder(np.random.default_rng(seed), opset)


IMAGES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Attributes]] = {
    "1x1": ((2, 8, 5, 6), (12, 8, 1, 1), {}),
    "3x3 padded": ((2, 8, 5, 6), (12, 8, 3, 3), {"pads": [1, 1, 1, 1]}),
    "other pads on each side": ((1, 4, 6, 5), (6, 4, 3, 2), {"pads": [0, 1, 2, 0]}),
    "strides": ((2, 8, 9, 8), (4, 8, 3, 3), {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilation": ((1, 4, 9, 10), (8, 4, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "groups": ((2, 8, 5, 5), (12, 2, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "depthwise": ((2, 16, 6, 6), (16, 1, 3, 3), {"group": 16, "pads": [1, 1, 1, 1]}),
    "depthwise with strides": (
        (2, 16, 7, 8),
        (16, 1, 5, 5),
        {"group": 16, "strides": [2, 2], "pads": [2] * 4},
    ),
    "depthwise of two for each": ((1, 6, 6, 6), (12, 1, 3, 3), {"group": 6}),
    "SAME_UPPER": ((1, 4, 7, 6), (4, 4, 3, 4), {"auto_pad": "SAME_UPPER"}),
    "SAME_UPPER with strides": ((1, 4, 7, 6), (4, 4, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "SAME_LOWER": ((1, 4, 7, 6), (4, 4, 4, 2), {"auto_pad": "SAME_LOWER"}),
    "SAME_LOWER with strides": ((1, 4, 8, 7), (4, 4, 3, 4), {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    "VALID": ((1, 4, 7, 6), (4, 4, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}),
    "NOTSET": ((1, 4, 7, 6), (4, 4, 3, 3), {"auto_pad": "NOTSET", "pads": [1, 0, 0, 1]}),
    "window as large as the image": ((3, 5, 4, 3), (7, 5, 4, 3), {}),
    "three channels": ((1, 3, 11, 11), (8, 3, 7, 7), {"strides": [2, 2], "pads": [3, 3, 3, 3]}),
    "one channel": ((1, 1, 5, 5), (1, 1, 2, 2), {}),
    "stated kernel": ((1, 4, 5, 5), (4, 4, 3, 3), {"kernel_shape": [3, 3]}),
}
SEQUENCES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Attributes]] = {
    "1": ((2, 8, 9), (12, 8, 1), {}),
    "3 padded": ((2, 8, 9), (12, 8, 3), {"pads": [1, 1]}),
    "causal": ((2, 8, 9), (12, 8, 4), {"pads": [3, 0]}),
    "strides and dilation": ((1, 4, 16), (4, 4, 3), {"strides": [2], "dilations": [2], "pads": [2, 2]}),
    "depthwise": ((2, 16, 6), (16, 1, 3), {"group": 16, "pads": [1, 1]}),
    "SAME_LOWER": ((2, 4, 7), (4, 4, 4), {"auto_pad": "SAME_LOWER", "strides": [2]}),
}
ALL = {
    f"{kind}, {name}": form
    for kind, forms in (("image", IMAGES), ("sequence", SEQUENCES))
    for name, form in forms.items()
}


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("form", ALL)
def test_every_window_of_floats(form: str, opset: int, tmp_path: Path) -> None:
    shape, weight, attributes = ALL[form]
    b = builder(opset=opset)
    b.input("x", ["n", *shape[1:]])
    y = b.add("Conv", "x", b.normal(*weight, scale=0.3), b.normal(weight[0]), **attributes)
    found = agrees(b.model(y=y), {"x": b.rng.standard_normal(shape).astype(np.float32)}, tmp_path)
    assert found.steps.count("conv") == 1


@pytest.mark.parametrize("form", ALL)
def test_every_window_of_integers(form: str, tmp_path: Path) -> None:
    shape, weight, attributes = ALL[form]
    b = builder()
    x, feeds = fed(b, *shape)
    held, _ = quantized_weight(b, weight)
    y = quantized(b, b.add("Relu", b.add("Conv", x, held, b.normal(weight[0]), **attributes)))
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps.count("conv") == 1
    assert "dequantize" not in found.steps


@pytest.mark.parametrize("bias", ["none", "float", "integers"])
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_weight_and_bias(
    dtype: type, per_tensor: bool, asymmetric: bool, bias: str, tmp_path: Path
) -> None:
    b = builder()
    x, feeds = fed(b, 2, 8, 6, 6)
    held, scale = quantized_weight(b, (12, 8, 3, 3), Weight(dtype, per_tensor, asymmetric))
    biases = {
        "none": [],
        "float": [b.normal(12)],
        "integers": [integer_bias(b, 12, scale)] if bias == "integers" else [],
    }
    y = quantized(b, b.add("Relu", b.add("Conv", x, held, *biases[bias], pads=[1] * 4)))
    found = agrees(b.model(y=y), feeds, tmp_path)
    # A weight that leaves [-127, 127] is the sum of two, the second of which adds what the first made.
    assert found.steps == ["to_channels_last", *["conv"] * (1 + asymmetric), "to_channels_first"]


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_signed_and_unsigned_images(dtype: type, opset: int, tmp_path: Path) -> None:
    """Opset 11 has one scale alone for a weight."""
    b = builder(opset=opset)
    x = b.round_trip(b.input("x", ["n", 8, 5, 5]), 0.03, -7 if dtype is np.int8 else 120, dtype)
    values = b.constant(b.rng.integers(-127, 128, (6, 8, 3, 3)).astype(np.int8))
    weight = b.add("DequantizeLinear", values, b.number(0.002), b.constant(np.int8(0)))
    y = b.add("QuantizeLinear", b.add("Conv", x, weight), *b.quantizer(0.05, 3, dtype))
    y = b.add("DequantizeLinear", y, *b.quantizer(0.05, 3, dtype))
    feeds = {"x": b.rng.standard_normal((2, 8, 5, 5)).astype(np.float32)}
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps.count("conv") == 1


@pytest.mark.parametrize("quantized_too", [False, True])
def test_free_height_and_width(quantized_too: bool, tmp_path: Path) -> None:
    """Two convolutions with strides, whose sum says that their sizes are equal, and one more."""
    b = builder()
    x = b.input("x", ["n", 8, "height", "width"])
    source = b.round_trip(x, 0.05, 117) if quantized_too else x
    sides = [
        b.add("Conv", source, _weight(b, (8, 8, k, k), quantized_too), strides=[2, 2], pads=[k // 2] * 4)
        for k in (1, 3)
    ]
    y = b.add("Relu", b.add("Add", *sides))
    y = b.add(
        "Conv", b.round_trip(y, 0.04, 0) if quantized_too else y, _weight(b, (8, 8, 3, 3), quantized_too)
    )
    model = b.model(y=y)
    for height, width in ((5, 5), (8, 13), (9, 6)):
        feeds = {"x": b.rng.standard_normal((2, 8, height, width)).astype(np.float32)}
        found = agrees(model, feeds, tmp_path, shapes=[[2, height, width]])
        assert found.steps == ["to_channels_last", "conv", "conv", "conv", "to_channels_first"]


def _weight(b: Builder, shape: tuple[int, ...], quantized_too: bool) -> str:
    return quantized_weight(b, shape, name="")[0] if quantized_too else b.normal(*shape, scale=0.2)


def test_a_free_size_that_is_too_small_is_refused_in_a_sentence(tmp_path: Path) -> None:
    b = builder()
    b.input("x", ["n", 8, "height", "width"])
    model = b.model(y=b.add("Conv", "x", b.normal(8, 8, 3, 3)))
    built(model, {"x": np.ones((1, 8, 3, 3), np.float32)}, tmp_path, shapes=[[1, 1, 2], [2, 3, 3]])
    with pytest.raises(ValueError, match="reaches over 3 pixels of a padded height of 2"):
        built(model, {"x": np.ones((1, 8, 2, 3), np.float32)}, tmp_path)


def test_padding_that_depends_on_a_free_size_stays(tmp_path: Path) -> None:
    b = builder()
    b.input("x", ["n", 8, "height", "width"])
    y = b.add("Conv", "x", b.normal(8, 8, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
    found = agrees(
        b.model(y=y), {"x": b.rng.standard_normal((1, 8, 6, 5)).astype(np.float32)}, tmp_path, strict=False
    )
    assert found.steps == ["fallback"]
    assert "its padding is SAME_UPPER of a free size with strides" in found.reasons[0]


def test_same_padding_of_a_free_size_without_strides(tmp_path: Path) -> None:
    b = builder()
    b.input("x", ["n", 8, "height", "width"])
    y = b.add("Conv", "x", b.normal(8, 8, 4, 3, scale=0.2), auto_pad="SAME_LOWER")
    feeds = {"x": b.rng.standard_normal((1, 8, 6, 5)).astype(np.float32)}
    assert agrees(b.model(y=y), feeds, tmp_path).steps == MOVED


def listed_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer among the inputs of the graph too, as IR version 3 demands it."""
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return model


def test_initializers_that_are_listed_as_inputs(tmp_path: Path) -> None:
    b = builder(opset=11)
    x, feeds = fed(b, 2, 8, 5, 5)
    values = b.constant(b.rng.integers(-127, 128, (6, 8, 3, 3)).astype(np.int8))
    weight = b.add("DequantizeLinear", values, b.number(0.002), b.constant(np.int8(0)))
    model = b.model(y=quantized(b, b.add("Conv", x, weight, b.normal(6))))
    model.ir_version = 3
    found = agrees(listed_as_inputs(model), feeds, tmp_path)
    assert found.steps.count("conv") == 1


def residual(
    b: Builder, shape: tuple[int, ...], quantized_sum: bool, post: bool
) -> tuple[str, dict[str, Any]]:
    """A basic block: two convolutions, the input of which is added to what they make, and a ReLU."""
    channels = shape[1]
    x, feeds = fed(b, *shape)
    y = x
    for number in range(2):
        weight, _ = quantized_weight(b, (channels, channels, 3, 3), name=f"c{number}.weight")
        y = b.add("Conv", y, weight, b.normal(channels), pads=[1] * 4)
        y = y if number or not post else b.add("Relu", y)
        y = b.round_trip(y, 0.04, 0 if not number and post else 128) if not number or quantized_sum else y
    y = b.add("Relu", b.add("Add", y, x))
    return quantized(b, y, 0.03, 0), feeds


@pytest.mark.parametrize("post", [False, True])
def test_a_residual_and_its_relu_go_into_the_convolution(post: bool, tmp_path: Path) -> None:
    b = builder()
    y, feeds = residual(b, (2, 16, 6, 6), False, post)
    assert agrees(b.model(y=y), feeds, tmp_path).steps == [
        "to_channels_last",
        "conv",
        "conv",
        "to_channels_first",
    ]


def test_a_residual_behind_a_rounding_is_rounded_in_the_product(tmp_path: Path) -> None:
    b = builder()
    y, feeds = residual(b, (2, 16, 6, 6), True, True)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "conv", "to_channels_first"]


REFUSED: dict[str, tuple[tuple[int, ...], Attributes, str]] = {
    "three spatial axes": ((4, 2, 2, 2, 2), {}, "those over sequences and images are run"),
    "a computed weight": ((4, 2, 2, 2), {}, "openwork does not run Conv"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_native_form_says_why(name: str) -> None:
    weight, attributes, reason = REFUSED[name]
    b = builder()
    shape = (2, weight[1], *[4] * (len(weight) - 2))
    feeds = {"x": b.rng.standard_normal(shape).astype(np.float32)}
    b.input("x", shape)
    held = b.normal(*weight)
    if "computed" in name:
        feeds["w"] = b.rng.standard_normal(weight).astype(np.float32)
        held = b.input("w", weight)
    found = reduced(b.model(y=b.add("Conv", "x", held, **attributes)), feeds)
    assert found.operators == ["onnx.Conv"]
    assert reason in found.left[0]
