"""Random small Q/DQ graphs on images, drawn into the same models as `qdq_graphs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from qdq_graphs import Artist, Value


def _pads(artist: Artist, kernel: Sequence[int]) -> dict[str, Any]:
    """Pads below the kernel on each side, or one of ONNX's words for them."""
    automatic = artist.one_of("NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if automatic != "NOTSET":
        return {"auto_pad": automatic}
    return {"pads": [int(artist.rng.integers(0, k)) for _ in range(2) for k in kernel]}


class Painter:
    """Draws chains of blocks on images [batch, channels, height, width]; what it draws on is the artist's."""

    def __init__(self, artist: Artist) -> None:
        self.artist, self.b, self.rng = artist, artist.b, artist.rng

    def image(self) -> Value:
        artist = self.artist
        name = f"x{len(artist.feeds)}"
        shape = (int(self.rng.integers(1, 3)), int(artist.one_of(1, 3, 4, 8)), *self._sizes())  # type: ignore[call-overload]
        artist.feeds[name] = self.rng.standard_normal(shape).astype(np.float32) * np.float32(2)
        self.b.input(name, shape)
        return Value(name, shape, 5.0)

    def _sizes(self) -> tuple[int, int]:
        return cast(tuple[int, int], tuple(int(n) for n in self.rng.integers(3, 8, 2)))

    def _made(self, x: Value, kernel: Sequence[int], given: dict[str, Any]) -> tuple[int, ...] | None:
        """Height and width that a window makes; None where it does not fit."""
        found = []
        for axis, size in enumerate(x.shape[2:]):
            stride = given.get("strides", [1, 1])[axis]
            reach = (kernel[axis] - 1) * given.get("dilations", [1, 1])[axis] + 1
            if given.get("auto_pad", "NOTSET").startswith("SAME"):
                found.append(-(-size // stride))
                continue
            pads = given.get("pads", [0, 0, 0, 0])
            found.append((size + pads[axis] + pads[axis + 2] - reach) // stride + 1)
        return tuple(found) if min(found) > 0 else None

    def _window(
        self, x: Value, largest: int, dilated: bool
    ) -> tuple[list[int], dict[str, Any], tuple[int, ...]]:
        while True:
            kernel = [int(n) for n in self.rng.integers(1, largest + 1, 2)]
            given = _pads(self.artist, kernel)
            if self.artist.chance(0.4):
                # ONNX Runtime takes no strides beyond the window with SAME: pads would be below zero.
                most = 4 if "pads" in given else min(kernel) + 1
                given["strides"] = [int(n) for n in self.rng.integers(1, most, 2)]
            # ONNX Runtime refuses dilations beside the words for pads.
            if dilated and "pads" in given and self.artist.chance(0.3):
                given["dilations"] = [int(n) for n in self.rng.integers(1, 3, 2)]
            made = self._made(x, kernel, given)
            if made is not None:
                return kernel, given, made

    def _weight(self, outputs: int, inputs: int, kernel: Sequence[int]) -> str:
        """Signed or unsigned, one scale or many, with zero points in the middle or anywhere."""
        artist, rng = self.artist, self.rng
        dtype, each = artist.one_of(np.int8, np.int8, np.uint8), artist.chance(0.6)
        info = np.iinfo(cast(Any, dtype))
        asymmetric = artist.chance(0.25)
        middle = (int(info.min) + int(info.max) + 1) // 2
        points = rng.integers(info.min, info.max + 1, outputs) if asymmetric else np.full(outputs, middle)
        values = rng.integers(info.min + (not asymmetric), info.max + 1, (outputs, inputs, *kernel))
        step = rng.uniform(0.5, 1.5, outputs) / (100 * np.sqrt(inputs * np.prod(kernel)))
        given = (
            self.b.constant(values.astype(dtype)),
            self.b.constant((step if each else step[0]).astype(np.float32)),
            self.b.constant((points if each else points[0]).astype(dtype)),
        )
        return self.b.add("DequantizeLinear", *given, axis=0)

    def convolution(self, x: Value, outputs: int = 0, kernel: Sequence[int] = ()) -> Value:
        """x through a quantizer by a quantized weight, in groups or not, with a bias or without."""
        artist, channels = self.artist, x.shape[1]
        read = artist.rounded(x) if not artist.chance(0.1) else x
        groups = int(artist.one_of(1, 1, 1, channels, 2 if channels % 2 == 0 else 1))  # type: ignore[call-overload]
        n = outputs or groups * int(self.rng.integers(1, 5 if groups == 1 else 3))
        groups = groups if n % groups == 0 else 1
        if kernel:
            size, given, made = list(kernel), dict[str, Any](), x.shape[2:]
        else:
            size, given, made = self._window(x, 3, True)
        weight = self._weight(n, channels // groups, size)
        bias = [self.b.normal(n)] if artist.chance(0.6) else []
        name = self.b.add("Conv", read.name, weight, *bias, group=groups, **given)
        return Value(name, (x.shape[0], n, *made), read.size * 1.5 + bool(bias))

    def pool(self, x: Value) -> Value:
        artist = self.artist
        op = str(artist.one_of("MaxPool", "AveragePool"))
        kernel, given, made = self._window(x, 3, op == "MaxPool")
        extra = {"count_include_pad": int(artist.chance(0.4))} if op == "AveragePool" else {}
        name = self.b.add(op, artist.maybe_rounded(x, 0.7).name, kernel_shape=kernel, **given, **extra)
        return Value(name, (*x.shape[:2], *made), x.size)

    def pixel(self, x: Value) -> Value:
        """The mean or the largest of all pixels of each channel."""
        op = str(self.artist.one_of("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"))
        name = self.b.add(op, self.artist.maybe_rounded(x, 0.7).name)
        return Value(name, (*x.shape[:2], 1, 1), x.size)

    def gated(self, x: Value) -> Value:
        """Squeeze and excitation: x times a number for each channel, which is a function of its mean."""
        artist = self.artist
        source = artist.rounded(x)
        gate = artist.maybe_rounded(self.convolution(self.pixel(source), x.shape[1], (1, 1)), 0.7)
        gate = artist.maybe_rounded(Value(self.b.add("Sigmoid", gate.name), gate.shape, 1.0), 0.7)
        pair = (source, gate) if artist.chance(0.5) else (gate, source)
        return Value(self.b.add("Mul", pair[0].name, pair[1].name), x.shape, x.size)

    def sum(self, x: Value) -> Value:
        """A residual: x and what convolutions of one pixel make of it, each rounded or not."""
        artist, channels = self.artist, x.shape[1]
        source = artist.maybe_rounded(x, 0.7)
        first = artist.maybe_rounded(self.convolution(source, channels, (1, 1)), 0.5)
        other = source if artist.chance(0.6) else self.convolution(source, channels, (1, 1))
        second = artist.maybe_rounded(other, 0.3)
        pair = (first, second) if artist.chance(0.5) else (second, first)
        return Value(self.b.add("Add", pair[0].name, pair[1].name), x.shape, first.size + second.size)

    def side_by_side(self, x: Value) -> Value:
        artist = self.artist
        parts = [artist.maybe_rounded(self.convolution(x, 0, (1, 1)), 0.7), artist.maybe_rounded(x, 0.7)]
        name = self.b.add("Concat", *(part.name for part in parts), axis=1)
        channels = sum(part.shape[1] for part in parts)
        return Value(name, (x.shape[0], channels, *x.shape[2:]), max(part.size for part in parts))

    def border(self, x: Value) -> Value:
        pads = [0, 0, *self.rng.integers(0, 3, 2), 0, 0, *self.rng.integers(0, 3, 2)]
        sizes = (int(size + pads[a] + pads[a + 4]) for a, size in enumerate(x.shape))
        value = self.b.number(0.0 if self.artist.chance(0.7) else 0.5)
        read = self.artist.maybe_rounded(x, 0.7)
        name = self.b.add("Pad", read.name, self.b.integers(*(int(p) for p in pads)), value)
        return Value(name, tuple(sizes), x.size)

    def norm(self, x: Value) -> Value:
        n = x.shape[1]
        spread = self.b.constant(self.rng.uniform(0.5, 1.5, n).astype(np.float32))
        numbers = self.b.normal(n), self.b.normal(n), self.b.normal(n), spread
        return Value(
            self.b.add("BatchNormalization", x.name, *numbers, epsilon=1e-3), x.shape, 2 * x.size + 3
        )

    def graph(self) -> None:
        """One chain of blocks; some of it read by an output of its own, some with a classifier behind."""
        artist, x = self.artist, self.image()
        blocks: list[Callable[[Value], Value]] = [
            *(self.convolution, self.convolution, self.convolution, self.pool, self.sum, self.gated),
            *(self.side_by_side, artist.activation, artist.activation, self.border, self.norm),
        ]
        for _ in range(int(self.rng.integers(1, 5))):
            x = artist.maybe_rounded(blocks[int(self.rng.integers(len(blocks)))](x), 0.5)
            if artist.chance(0.1):
                artist.output(x)
        if artist.chance(0.3):
            flat = Value(self.b.add("Flatten", self.pixel(x).name), x.shape[:2], x.size)
            x = artist.product(flat)
        artist.output(x)
