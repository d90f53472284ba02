"""Images as they are fed, bytes or floats, channels first or last, normalized in the model: no step falls
back, and every integer is the one that ONNX Runtime makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from graph_models import Array, Builder, reduced, runtime
from image_models import built, quantized_weight

CHANNELS = 3
SIZE = 9
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Stage = Callable[["Preprocessing"], None]


class Preprocessing:
    """A model under way from what is fed to a convolution; `last` is whether the channels stand last now."""

    def __init__(self, last: bool, dtype: int, pixels: tuple[int | str, int | str] = (SIZE, SIZE)) -> None:
        self.b, self.last, self.dtype = Builder(np.random.default_rng(5)), last, dtype
        shape = ["n", *pixels, CHANNELS] if last else ["n", CHANNELS, *pixels]
        self.value = self.b.input("x", shape, dtype)

    def numbers(self, values: tuple[float, ...], factor: float = 1.0) -> str:
        """One for each channel, as they are written where the channels stand now."""
        array = (np.array(values) * factor).astype(np.float32)
        return self.b.constant(array if self.last else array.reshape(1, -1, 1, 1))

    def then(self, op: str, *others: str, **attributes: object) -> None:
        self.value = self.b.add(op, self.value, *others, **attributes)


def cast(p: Preprocessing) -> None:
    p.then("Cast", to=TensorProto.FLOAT)


def turn(p: Preprocessing) -> None:
    p.then("Transpose", perm=[0, 3, 1, 2])
    p.last = False


def by_255(p: Preprocessing) -> None:
    p.then("Div", p.b.number(255.0))


def times_255th(p: Preprocessing) -> None:
    p.then("Mul", p.b.number(1 / 255))


def to_one(p: Preprocessing) -> None:
    """-1 to 1, as TensorFlow's networks have it."""
    p.then("Div", p.b.number(127.5))
    p.then("Sub", p.b.number(1.0))


def normalize(p: Preprocessing) -> None:
    p.then("Sub", p.numbers(MEAN))
    p.then("Div", p.numbers(DEVIATION))


def normalize_bytes(p: Preprocessing) -> None:
    p.then("Sub", p.numbers(MEAN, 255))
    p.then("Mul", p.numbers(tuple(1 / d for d in DEVIATION), 1 / 255))


def scale_and_shift(p: Preprocessing) -> None:
    p.then("Mul", p.numbers(tuple(1 / d for d in DEVIATION)))
    p.then("Add", p.numbers(tuple(-m / d for m, d in zip(MEAN, DEVIATION, strict=True))))


def rounded(p: Preprocessing) -> None:
    p.value = p.b.round_trip(p.value, 0.0186, 114)


def rounded_signed(p: Preprocessing) -> None:
    p.value = p.b.round_trip(p.value, 0.0186, -14, np.int8)


def rounded_to_bytes(p: Preprocessing) -> None:
    p.value = p.b.round_trip(p.value, 1 / 255, 0)


SAME = ["conv", "to_channels_first"]
"""Bytes that a quantizer gives back: nothing is done."""
PLANES = ["slice"] * CHANNELS + ["concat"]
TURNED = ["to_channels_first", *PLANES, "to_channels_last", *SAME]

BYTES: dict[str, tuple[bool, tuple[Stage, ...], list[str]]] = {
    "bytes that stay": (True, (cast, by_255, rounded_to_bytes, turn), SAME),
    "turned before they are rounded": (True, (cast, by_255, turn, rounded_to_bytes), SAME),
    "turned as bytes": (True, (turn, cast, by_255, rounded_to_bytes), SAME),
    "channels first": (False, (cast, by_255, rounded_to_bytes), ["to_channels_last", *SAME]),
    "one table for all": (True, (cast, to_one, turn, rounded), ["lookup", *SAME]),
    "a table for each, channels first": (
        False,
        (cast, by_255, normalize, rounded),
        [*PLANES, "to_channels_last", *SAME],
    ),
    "signed": (False, (cast, by_255, normalize, rounded_signed), [*PLANES, "to_channels_last", *SAME]),
    "normalized, turned, rounded": (True, (cast, times_255th, normalize, turn, rounded), TURNED),
    "turned, normalized, rounded": (True, (turn, cast, by_255, normalize, rounded), TURNED),
    "turned in between": (True, (cast, turn, times_255th, scale_and_shift, rounded), TURNED),
    "as numbers of bytes": (True, (cast, normalize_bytes, rounded, turn), TURNED),
}


def model(last: bool, dtype: int, stages: tuple[Stage, ...], free: bool = False) -> tuple[Preprocessing, str]:
    """Through the stages into a convolution, quantized where the image is; free: height and width are."""
    p = Preprocessing(last, dtype, ("h", "w") if free else (SIZE, SIZE))
    for stage in stages:
        stage(p)
    integers = any("rounded" in stage.__name__ for stage in stages)
    shape = (8, CHANNELS, 3, 3)
    weight = quantized_weight(p.b, shape)[0] if integers else p.b.normal(*shape, scale=0.2)
    return p, p.b.add("Conv", p.value, weight, p.b.normal(8), pads=[1, 1, 1, 1])


def every_byte() -> Array:
    """Three images in whose channels each byte stands somewhere."""
    rng = np.random.default_rng(3)
    drawn = rng.integers(0, 256, (4, CHANNELS, SIZE, SIZE))
    drawn.reshape(4, CHANNELS, -1)[:, :, :64] = np.arange(256).reshape(4, 1, 64)
    return drawn.astype(np.uint8)


def fed(image: Array, last: bool) -> dict[str, Array]:
    return {"x": np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if last else image}


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", BYTES)
def test_bytes(name: str, free: bool, tmp_path: Path) -> None:
    last, stages, steps = BYTES[name]
    p, made = model(last, TensorProto.UINT8, stages, free)
    proto, feeds = p.b.model(y=made), fed(every_byte(), last)
    found, expected = built(proto, feeds, tmp_path), runtime(proto, feeds)["y"]
    assert found.steps == steps
    # Products of 27 integers below 2^24 are exact; ONNX Runtime adds as many rounded floats.
    eps = 2.0**-24
    np.testing.assert_allclose(found.outputs["y"], expected, rtol=0, atol=30 * eps * 27 * 4)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stages", [(by_255, normalize), (normalize_bytes,), (to_one,), (scale_and_shift,)])
def test_every_integer_is_that_of_onnx_runtime(last: bool, stages: tuple[Stage, ...], tmp_path: Path) -> None:
    p = Preprocessing(last, TensorProto.UINT8)
    for stage in (cast, *stages):
        stage(p)
    p.then("QuantizeLinear", *p.b.quantizer(0.0186, 114))
    proto, feeds = p.b.model(y=p.value), fed(every_byte(), last)
    found = reduced(proto, feeds)
    np.testing.assert_array_equal(found.after["y"], runtime(proto, feeds)["y"])


def test_channels_that_are_normalized_alike_share_a_table(tmp_path: Path) -> None:
    p = Preprocessing(False, TensorProto.UINT8)
    cast(p)
    p.then("Mul", p.numbers((0.01,) * CHANNELS))
    p.then("QuantizeLinear", *p.b.quantizer(0.0186, 114))
    proto, feeds = p.b.model(y=p.value), fed(every_byte(), False)
    found = built(proto, feeds, tmp_path)
    assert found.steps == ["lookup"]
    np.testing.assert_array_equal(found.outputs["y"], runtime(proto, feeds)["y"])


FLOATS: dict[str, tuple[bool, tuple[Stage, ...], list[str]]] = {
    "normalized": (False, (normalize, rounded), ["to_channels_last", "conv", *SAME]),
    "of 0 to 255": (False, (by_255, normalize, rounded), ["multiply", "to_channels_last", "conv", *SAME]),
    "channels last": (True, (normalize, turn, rounded), ["conv", *SAME]),
    "turned first": (True, (turn, normalize, rounded), ["conv", *SAME]),
    "rounded first": (True, (scale_and_shift, rounded, turn), ["conv", *SAME]),
    "one number for all": (True, (to_one, turn, rounded), ["multiply", "add", *SAME]),
    "no quantizer": (True, (by_255, normalize, turn), ["multiply", "conv", *SAME]),
}


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8])
@pytest.mark.parametrize("name", FLOATS)
def test_no_step_falls_back(name: str, dtype: int, free: bool, tmp_path: Path) -> None:
    last, stages, steps = FLOATS[name]
    p, made = model(last, dtype, stages if dtype == TensorProto.FLOAT else (cast, *stages), free)
    proto, image = p.b.model(y=made), every_byte()
    feeds = fed(image if dtype == TensorProto.UINT8 else image.astype(np.float32), last)
    found, expected = built(proto, feeds, tmp_path), runtime(proto, feeds)["y"]
    if dtype == TensorProto.FLOAT:
        assert found.steps == steps
    # What is exactly between two integers of the quantizer may go either way: one step of 27 weights.
    step = 0.0186 * 0.02 if "rounded" in [stage.__name__ for stage in stages] else 0.0
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.outputs["y"], expected, rtol=0, atol=step + 2e-6 * scale)


def test_a_move_stays_behind_what_others_read_too() -> None:
    p = Preprocessing(True, TensorProto.FLOAT)
    normalize(p)
    normalized = p.value
    turn(p)
    made = p.b.add("Conv", p.value, p.b.normal(8, CHANNELS, 3, 3))
    found = reduced(p.b.model(y=made, z=normalized), fed(every_byte().astype(np.float32), True))
    np.testing.assert_allclose(found.after["z"], found.before["z"], rtol=1e-5, atol=1e-5)
    assert "move the channels of a fed image first" not in found.rules


def test_many_channels_are_no_picture() -> None:
    b = Builder(np.random.default_rng(1))
    x = b.input("x", ["n", 24, 5, 5], TensorProto.UINT8)
    scaled = b.add("Mul", b.add("Cast", x, to=TensorProto.FLOAT), b.normal(24, 1, 1, scale=0.01))
    y = b.add("QuantizeLinear", scaled, *b.quantizer(0.02, 128))
    image = np.random.default_rng(2).integers(0, 256, (2, 24, 5, 5)).astype(np.uint8)
    found = reduced(b.model(y=y), {"x": image})
    assert found.left == []
    assert "Concat" not in found.operators
