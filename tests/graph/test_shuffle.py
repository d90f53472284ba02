"""Shuffles of channels as the exporters write them, in the units of ShuffleNet, beside ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_models import Builder, reduced, runtime
from image_models import agrees, built, fed, quantized_weight

CHANNELS, SIZE = 24, 5


def builder() -> Builder:
    return Builder(np.random.default_rng(13))


def shuffled(b: Builder, x: str, groups: int, *, axes: int = 5, quantized: bool = False) -> str:
    """Of an image with channels first: its pixels two axes of five, or one of four; a quantizer behind each
    node where the whole model has them."""
    pixels = (SIZE, SIZE) if axes == 5 else (SIZE * SIZE,)
    perm = [0, 2, 1, 3, 4][:axes]
    y = around(b, b.add("Reshape", x, b.integers(-1, groups, CHANNELS // groups, *pixels)), quantized)
    y = around(b, b.add("Transpose", y, perm=perm), quantized)
    return around(b, b.add("Reshape", y, b.integers(-1, CHANNELS, SIZE, SIZE)), quantized)


def around(b: Builder, value: str, quantized: bool) -> str:
    return b.round_trip(value, 0.05, 117) if quantized else value


MOVED = ["reshape", "to_channels_last", "reshape"]


@pytest.mark.parametrize("axes", [4, 5])
@pytest.mark.parametrize("groups", [2, 3, 4, 8])
def test_every_channel_finds_its_place(groups: int, axes: int, tmp_path: Path) -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", CHANNELS, SIZE, SIZE]))
    proto = b.model(y=b.add("Relu", shuffled(b, x, groups, axes=axes)))
    feeds = {"x": b.rng.standard_normal((3, CHANNELS, SIZE, SIZE)).astype(np.float32)}
    found = built(proto, feeds, tmp_path)
    np.testing.assert_array_equal(found.outputs["y"], runtime(proto, feeds)["y"])


def test_with_channels_last(tmp_path: Path) -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", SIZE, SIZE, CHANNELS]))
    y = b.add("Reshape", x, b.integers(-1, SIZE, SIZE, 4, CHANNELS // 4))
    y = b.add("Transpose", y, perm=[0, 1, 2, 4, 3])
    proto = b.model(y=b.add("Relu", b.add("Reshape", y, b.integers(-1, SIZE, SIZE, CHANNELS))))
    feeds = {"x": b.rng.standard_normal((3, SIZE, SIZE, CHANNELS)).astype(np.float32)}
    found = built(proto, feeds, tmp_path)
    assert found.steps == ["relu", *MOVED, "relu"]
    np.testing.assert_array_equal(found.outputs["y"], runtime(proto, feeds)["y"])


@pytest.mark.parametrize("quantized", [False, True])
def test_a_unit_of_groups(quantized: bool, tmp_path: Path) -> None:
    """Of ShuffleNet: a grouped product, a shuffle, each channel alone, a grouped product."""
    b = builder()
    if quantized:
        x, feeds = fed(b, 2, CHANNELS, SIZE, SIZE)
    else:
        x = b.input("x", ["n", CHANNELS, SIZE, SIZE])
        feeds = {"x": b.rng.standard_normal((2, CHANNELS, SIZE, SIZE)).astype(np.float32)}

    def layer(value: str, kernel: int, groups: int) -> str:
        shape, name = (CHANNELS, CHANNELS // groups, kernel, kernel), f"w{len(b.nodes)}"
        weight = quantized_weight(b, shape, name=name)[0] if quantized else b.normal(*shape, scale=0.2)
        return b.add("Conv", value, weight, b.normal(CHANNELS), group=groups, pads=[kernel // 2] * 4)

    y = around(b, b.add("Relu", layer(x, 1, 3)), quantized)
    y = around(b, layer(shuffled(b, y, 3, quantized=quantized), 3, CHANNELS), quantized)
    y = b.add("Add", layer(y, 1, 3), x)
    proto = b.model(y=b.add("QuantizeLinear", y, *b.quantizer(0.06, 120)) if quantized else y)
    steps = ["to_channels_last", "conv", *MOVED, "conv", "conv", "to_channels_first"]
    if quantized:
        assert agrees(proto, feeds, tmp_path).steps == steps
        return
    found, expected = built(proto, feeds, tmp_path), runtime(proto, feeds)["y"]
    assert found.steps == steps
    np.testing.assert_allclose(found.outputs["y"], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("quantized", [False, True])
def test_a_unit_that_splits(quantized: bool, tmp_path: Path) -> None:
    """Of ShuffleNetV2: half of the channels pass, the other half is computed with; both are shuffled."""
    b = builder()
    x = b.input("x", ["n", CHANNELS, SIZE, SIZE])
    feeds = {"x": b.rng.standard_normal((2, CHANNELS, SIZE, SIZE)).astype(np.float32)}
    y = around(b, x, quantized)
    for _ in range(2):
        first, second = f"first{len(b.nodes)}", f"second{len(b.nodes)}"
        b.add("Split", y, b.integers(CHANNELS // 2, CHANNELS // 2), axis=1)
        b.nodes[-1].output[:] = [first, second]
        first, second = around(b, first, quantized), around(b, second, quantized)
        shape = (CHANNELS // 2, CHANNELS // 2, 1, 1)
        weight = (
            quantized_weight(b, shape, name=f"w{len(b.nodes)}")[0]
            if quantized
            else b.normal(*shape, scale=0.3)
        )
        made = around(b, b.add("Relu", b.add("Conv", second, weight, b.normal(CHANNELS // 2))), quantized)
        y = shuffled(b, around(b, b.add("Concat", first, made, axis=1), quantized), 2, quantized=quantized)
    proto = b.model(y=b.add("GlobalAveragePool", y))
    found, expected = built(proto, feeds, tmp_path), runtime(proto, feeds)["y"]
    assert found.steps.count("conv") == 2
    # What lies at a tie of one of four quantizers moves a pixel of 25 by a step of 0.05.
    allowed = 0.05 * 4 / SIZE**2 if quantized else 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found.outputs["y"], expected, rtol=0, atol=allowed)


def test_a_batch_that_the_graph_looks_up(tmp_path: Path) -> None:
    """As torch exports `x.view(batch, groups, ...)` with a free batch."""
    b = builder()
    x = b.add("Relu", b.input("x", ["n", CHANNELS, SIZE, SIZE]))
    batch = b.add("Slice", b.add("Shape", x), b.integers(0), b.integers(1), b.integers(0))
    split = b.add("Concat", batch, b.integers(2, CHANNELS // 2, SIZE, SIZE), axis=0)
    joined = b.add("Concat", batch, b.integers(CHANNELS, SIZE, SIZE), axis=0)
    y = b.add("Transpose", b.add("Reshape", x, split), perm=[0, 2, 1, 3, 4])
    proto = b.model(y=b.add("Relu", b.add("Reshape", y, joined)))
    feeds = {"x": b.rng.standard_normal((3, CHANNELS, SIZE, SIZE)).astype(np.float32)}
    np.testing.assert_array_equal(built(proto, feeds, tmp_path).outputs["y"], runtime(proto, feeds)["y"])


def test_free_pixels_stay_with_their_reason() -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", CHANNELS, "h", "w"]))
    sizes = b.add("Shape", x)
    parts = [
        b.add("Slice", sizes, b.integers(begin), b.integers(end), b.integers(0))
        for begin, end in ((0, 1), (2, 4))
    ]
    split = b.add("Concat", parts[0], b.integers(2, CHANNELS // 2), parts[1], axis=0)
    joined = b.add("Concat", parts[0], b.integers(CHANNELS), parts[1], axis=0)
    y = b.add("Transpose", b.add("Reshape", x, split), perm=[0, 2, 1, 3, 4])
    proto = b.model(y=b.add("Relu", b.add("Reshape", y, joined)))
    found = reduced(proto, {"x": b.rng.standard_normal((2, CHANNELS, 4, 3)).astype(np.float32)})
    assert any("it shuffles channels, and it makes several free sizes anew" in why for why in found.left)


def test_other_turns_are_no_shuffle() -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["n", CHANNELS, SIZE, SIZE]))
    y = b.add("Reshape", x, b.integers(-1, 4, CHANNELS // 4, SIZE, SIZE))
    y = b.add("Transpose", y, perm=[0, 2, 1, 4, 3])
    found = reduced(
        b.model(y=b.add("Reshape", y, b.integers(-1, CHANNELS, SIZE, SIZE))),
        {"x": b.rng.standard_normal((2, CHANNELS, SIZE, SIZE)).astype(np.float32)},
    )
    np.testing.assert_array_equal(found.after["y"], found.before["y"])
    assert "shuffle of channels" not in found.rules
