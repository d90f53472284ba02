"""Integers of one scale side by side, made so by what makes the pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import image_models
import openwork
from graph_models import Array, Builder, reduced
from image_models import agrees, fed, quantized, quantized_weight
from openwork.graph.model import constant

SCALE, POINT = 0.031, 119


def builder() -> Builder:
    return Builder(np.random.default_rng(5))


def conv(b: Builder, x: str, outputs: int, inputs: int = 8, kernel: int = 1) -> str:
    """A convolution and its ReLU; as many pixels as before."""
    weight, _ = quantized_weight(b, (outputs, inputs, kernel, kernel), name=f"weight{len(b.nodes)}")
    return b.add("Relu", b.add("Conv", x, weight, b.normal(outputs), pads=[kernel // 2] * 4))


def pool(b: Builder, x: str) -> str:
    return b.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4)


def branches(b: Builder, x: str) -> list[str]:
    """Of an image of 8 channels: two convolutions, and one behind a pool."""
    pooled = b.round_trip(pool(b, x), image_models.SCALE, image_models.POINT)
    return [conv(b, x, 12), conv(b, x, 5, kernel=3), conv(b, pooled, 7)]


def image_of(b: Builder) -> tuple[str, dict[str, Array]]:
    return fed(b, 2, 8, 6, 5)


def only(steps: list[str]) -> list[str]:
    """Without the moves of channels at both ends."""
    return [step for step in steps if not step.startswith("to_channels")]


def test_one_quantizer_behind_floats_goes_into_what_makes_them(tmp_path: Path) -> None:
    b = builder()
    x, feeds = image_of(b)
    y = quantized(b, b.add("Concat", *branches(b, x), axis=1), SCALE, POINT)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert sorted(only(found.steps)) == ["concat", "conv", "conv", "conv", "max_pool"]


def test_it_goes_through_pools_and_through_other_joins(tmp_path: Path) -> None:
    b = builder()
    x, feeds = image_of(b)
    first = b.add("Concat", *branches(b, x), axis=1)
    y = quantized(b, pool(b, b.add("Concat", first, conv(b, x, 3), axis=1)), SCALE, POINT)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert sorted(only(found.steps)) == ["concat", "concat", *["conv"] * 4, "max_pool", "max_pool"]


@pytest.mark.parametrize("same", [True, False])
def test_convolutions_make_the_integers_of_the_joined_scale(same: bool, tmp_path: Path) -> None:
    """It looks up what becomes of its integers; those of what is fed are looked up as they join."""
    b = builder()
    x, feeds = image_of(b)
    scales = [SCALE] * 4 if same else [0.027, 0.05, 0.041, 0.033]
    pieces = [b.round_trip(value, scale, POINT) for value, scale in zip(branches(b, x), scales, strict=False)]
    pieces.append(pool(b, b.round_trip(conv(b, x, 6), scales[-1], POINT)))
    y = quantized(b, b.add("Concat", x, *pieces, axis=1), SCALE, POINT)
    model = b.model(y=y)
    agrees(model, feeds, tmp_path)
    tables = constant(joined(model, feeds).inputs[0])
    assert tables is not None
    changed = np.any(tables != np.arange(256), axis=1)
    assert changed.tolist() == [True, False, False, False, False]


def joined(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Any:
    return reduced(model, feeds).node("Concat")


def test_a_pool_of_rounded_numbers_is_joined_as_its_integers(tmp_path: Path) -> None:
    b = builder()
    x, feeds = image_of(b)
    pooled = pool(b, b.round_trip(conv(b, x, 6), 0.05, 3))
    y = quantized(b, b.add("Concat", conv(b, x, 12), pooled, axis=1), SCALE, POINT)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert sorted(only(found.steps)) == ["concat", "conv", "conv", "max_pool"]


def test_a_piece_that_others_read_stays_and_is_quantized_beside(tmp_path: Path) -> None:
    b = builder()
    x, feeds = image_of(b)
    kept = conv(b, x, 12)
    y = quantized(b, b.add("Concat", kept, conv(b, x, 5), axis=1), SCALE, POINT)
    found = agrees(b.model(y=y, z=b.add("Sigmoid", kept)), feeds, tmp_path)
    assert sorted(only(found.steps)) == ["concat", "conv", "conv", "quantize", "sigmoid"]


Readers = Callable[[Builder, str], dict[str, str]]
OTHERS: dict[str, Readers] = {
    "another scale": lambda b, y: {"y": quantized(b, y, SCALE, POINT), "z": quantized(b, y, 0.05, 7)},
    "floats": lambda b, y: {"y": quantized(b, y, SCALE, POINT), "z": b.add("Sigmoid", y)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_floats_that_others_read_stay_joined(name: str, tmp_path: Path) -> None:
    b = builder()
    x, feeds = image_of(b)
    outputs = OTHERS[name](b, b.add("Concat", *branches(b, x), axis=1))
    found = agrees(b.model(**outputs), feeds, tmp_path)
    assert "quantize" in found.steps


def test_a_pool_that_reads_what_others_read_stays_float(tmp_path: Path) -> None:
    """Else all pixels would be quantized for it alone."""
    b = builder()
    x, feeds = image_of(b)
    made = conv(b, x, 12)
    outputs = {"y": quantized(b, pool(b, made), SCALE, POINT), "z": b.add("Sigmoid", made)}
    found = agrees(b.model(**outputs), feeds, tmp_path)
    assert sorted(only(found.steps)) == ["conv", "max_pool", "quantize", "sigmoid"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_engines_of_any_batch_and_number_of_threads_give_the_same(
    batch: int, threads: int, tmp_path: Path
) -> None:
    b = builder()
    x, feeds = image_of(b)
    first = b.round_trip(b.add("Concat", *branches(b, x), axis=1), SCALE, POINT)
    second = b.add("Concat", first, conv(b, first, 9, 24), axis=1)
    path = tmp_path / "m.engine"
    openwork.build(
        b.model(y=b.add("Sigmoid", second)), path, native="force", timing_cache=tmp_path / "t", progress=False
    )
    images = np.resize(feeds["x"], (batch, 8, 6, 5))
    found = openwork.load(path, threads=threads).run({"x": images})["y"]
    engine = openwork.load(path, threads=1)
    alone = [engine.run({"x": images[i : i + 1]})["y"] for i in range(batch)]
    assert np.array_equal(found, np.concatenate(alone))
