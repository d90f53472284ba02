"""Transposed convolutions: those without strides are convolutions, all others are left with their reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_models import Builder, reduced, runtime
from image_models import built, fed, quantized
from openwork.graph import lowerable, read, reduce

INPUTS, OUTPUTS = 8, 12

CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "one pixel": ((1, 1), {}),
    "plain": ((3, 3), {}),
    "uneven": ((3, 2), {}),
    "pads": ((3, 5), {"pads": [1, 0, 2, 3]}),
    "dilations": ((3, 3), {"dilations": [2, 3], "pads": [2, 1, 0, 4]}),
    "same, upper": ((3, 4), {"auto_pad": "SAME_UPPER"}),
    "same, lower": ((3, 4), {"auto_pad": "SAME_LOWER"}),
    "valid": ((3, 4), {"auto_pad": "VALID"}),
    "groups": ((3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "each channel alone": ((3, 3), {"group": 8}),
    "strides of 1, said": ((2, 2), {"strides": [1, 1], "kernel_shape": [2, 2]}),
    "a sequence": ((4,), {"dilations": [2], "pads": [1, 3]}),
}


def builder() -> Builder:
    return Builder(np.random.default_rng(17))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_floats(name: str, bias: bool, tmp_path: Path) -> None:
    kernel, attributes = CASES[name]
    b, size = builder(), (7, 6)[: len(kernel)]
    x = b.input("x", ["n", INPUTS, *size])
    outputs = OUTPUTS if attributes.get("group", 1) == 1 else 3
    weight = b.normal(INPUTS, outputs, *kernel, scale=0.2)
    held = [b.normal(outputs * attributes.get("group", 1))] if bias else []
    proto = b.model(y=b.add("ConvTranspose", x, weight, *held, **attributes))
    feeds = {"x": b.rng.standard_normal((2, INPUTS, *size)).astype(np.float32)}
    found, expected = built(proto, feeds, tmp_path), runtime(proto, feeds)["y"]
    assert "conv" in found.steps
    terms = INPUTS * int(np.prod(kernel))
    np.testing.assert_allclose(found.outputs["y"], expected, rtol=0, atol=terms * 2.0**-24 * 30)


@pytest.mark.parametrize("scales", ["one", "outputs"])
@pytest.mark.parametrize("groups", [1, 4])
def test_integers(scales: str, groups: int, tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 2, INPUTS, 6, 5)
    each = OUTPUTS // groups
    values = b.constant(b.rng.integers(-127, 128, (INPUTS, each, 3, 3)).astype(np.int8), "layer.weight")
    count = () if scales == "one" else (each,)
    scale = b.constant((b.rng.uniform(0.5, 1.5, count) / 900).astype(np.float32))
    point = b.constant(np.zeros(count, np.int8))
    weight = b.add("DequantizeLinear", values, scale, point, axis=1)
    y = b.add("ConvTranspose", x, weight, b.normal(OUTPUTS), group=groups, pads=[1, 0, 1, 1])
    proto = b.model(y=quantized(b, y))
    found = built(proto, feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first"]
    # A sum at a tie of the quantizer may go either way.
    steps = np.abs(found.outputs["y"].astype(int) - runtime(proto, feeds)["y"].astype(int))
    assert steps.max() <= 1
    assert (steps > 0).mean() <= 1 / 200


LEFT: dict[str, tuple[dict[str, Any], str]] = {
    "strides": (
        {"strides": [2, 2]},
        r"it spreads its input by strides \[2, 2\]; one of strides 1 alone is a convolution",
    ),
    "a stated shape": ({"output_shape": [8, 8]}, "its output's shape is stated"),
    "larger pads": ({"pads": [3, 0, 0, 0]}, r"it cuts its result by pads \[3, 0, 0, 0\] larger than"),
}


@pytest.mark.parametrize("name", LEFT)
def test_others_run_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    attributes, reason = LEFT[name]
    b = builder()
    x = b.add("Relu", b.input("x", ["n", INPUTS, 7, 6]))
    y = b.add("ConvTranspose", x, b.normal(INPUTS, OUTPUTS, 3, 3), **attributes)
    proto = b.model(y=b.add("Relu", y))
    feeds = {"x": b.rng.standard_normal((2, INPUTS, 7, 6)).astype(np.float32)}
    found = built(proto, feeds, tmp_path, strict=False)
    assert any(re.search(reason, why) for why in found.reasons)
    np.testing.assert_allclose(found.outputs["y"], runtime(proto, feeds)["y"], rtol=1e-5, atol=1e-4)


def test_a_computed_weight_stays() -> None:
    b = builder()
    x, w = b.input("x", ["n", INPUTS, 7, 6]), b.input("w", [INPUTS, OUTPUTS, 3, 3])
    feeds = {"x": np.ones((2, INPUTS, 7, 6), np.float32), "w": np.ones((INPUTS, OUTPUTS, 3, 3), np.float32)}
    found = reduced(b.model(y=b.add("ConvTranspose", x, w)), feeds)
    assert found.left == ["ConvTranspose: transposed convolution: its weight is not constant"]


def test_scales_of_input_channels_make_it_one_of_floats() -> None:
    b = builder()
    x = b.input("x", ["n", INPUTS, 7, 6])
    values = b.constant(b.rng.integers(-127, 128, (INPUTS, OUTPUTS, 3, 3)).astype(np.int8))
    scales, points = b.constant(np.full(INPUTS, 0.01, np.float32)), b.constant(np.zeros(INPUTS, np.int8))
    y = b.add("ConvTranspose", x, b.add("DequantizeLinear", values, scales, points, axis=0))
    found = reduced(b.model(y=y), {"x": np.ones((2, INPUTS, 7, 6), np.float32)})
    np.testing.assert_allclose(found.after["y"], found.before["y"], rtol=1e-5)
    assert found.operators == ["ToChannelsLast", "Conv f32", "ToChannelsFirst"]


def test_more_pixels_behind_are_none_of_a_convolution() -> None:
    """ONNX allows them; ONNX Runtime wants strides for them."""
    b = builder()
    x, w = b.input("x", ["n", INPUTS, 7, 6]), b.normal(INPUTS, OUTPUTS, 3, 3)
    y = b.add("ConvTranspose", x, w, dilations=[2, 2], output_padding=[1, 1])
    model, _, _ = reduce(read(b.model(y=y)))
    assert [why for _, why in lowerable(model) if "it adds output_padding [1, 1]" in why]
