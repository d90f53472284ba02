"""The meaning of the operators on images [B, H, W, C] in NumPy, with the bits of docs/arithmetic.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.operators.windows import Axis
from openwork.graph.numerics.binary32 import quiet
from openwork.graph.numerics.epilogue import store

Array = NDArray[Any]
Attributes = Mapping[str, Any]


def _axes(a: Attributes) -> tuple[Axis, Axis]:
    pads = a["pads"]
    height, width = (
        Axis(a["kernel"][i], a["strides"][i], a["dilations"][i], pads[i], pads[i + 2]) for i in (0, 1)
    )
    return height, width


def _positions(axis: Axis, size: int) -> NDArray[np.int64]:
    """The pixel of each tap of each window, outside of [0, size) where it is padding: [windows, taps]."""
    first = np.arange(axis.made(size)) * axis.stride - axis.before
    return first[:, None] + np.arange(axis.kernel) * axis.dilation


def _taps(x: Array, axes: tuple[Axis, Axis]) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
    """The pixels that all windows have at one tap, [B, P, Q, C], and whether they are inside of the image,
    [P, Q, 1]; row by row."""
    rows, columns = (_positions(axis, size) for axis, size in zip(axes, x.shape[1:3], strict=True))
    inside = [(at >= 0) & (at < size) for at, size in zip((rows, columns), x.shape[1:3], strict=True)]
    clipped = [np.clip(at, 0, size - 1) for at, size in zip((rows, columns), x.shape[1:3], strict=True)]
    for r in range(rows.shape[1]):
        for s in range(columns.shape[1]):
            pixels = x[:, clipped[0][:, r]][:, :, clipped[1][:, s]]
            yield pixels, (inside[0][:, r, None] & inside[1][None, :, s])[..., None]


def _largest(x: Array, axes: tuple[Axis, Axis]) -> Array:
    shape = (x.shape[0], axes[0].made(x.shape[1]), axes[1].made(x.shape[2]), x.shape[3])
    made = np.full(shape, 0 if x.dtype == np.uint8 else -np.inf, x.dtype)
    for pixels, inside in _taps(x, axes):
        made = np.where(inside & (pixels > made), pixels, made)
    return made


def max_pool(x: Array, a: Attributes) -> Array:
    """The largest of the pixels of each window, from 0 (u8) or -infinity on; NaN is passed over."""
    return _largest(x, _axes(a))


def global_max_pool(x: Array, a: Attributes) -> Array:
    """The largest of all pixels: [B, 1, 1, C]."""
    return _largest(x, (Axis(x.shape[1]), Axis(x.shape[2])))


def _counts(axis: Axis, size: int, padding: bool, overhang: int) -> NDArray[np.int64]:
    """How many of its taps each window counts, at least one."""
    at = _positions(axis, size)
    low, high = (-axis.before, size + axis.after - overhang) if padding else (0, size)
    counts: NDArray[np.int64] = np.maximum(((at >= low) & (at < high)).sum(1), 1)
    return counts


def _mean(x: Array, axes: tuple[Axis, Axis], count: NDArray[np.int64], a: Attributes) -> Array:
    centre = a.get("x_zero_point", 0)
    total: Array = np.zeros((), np.int64 if x.dtype == np.uint8 else np.float32)
    with quiet():
        for pixels, inside in _taps(x, axes):
            total = np.where(inside, total + (pixels.astype(total.dtype) - total.dtype.type(centre)), total)
        divisor = count.astype(np.float32)[..., None]
        if x.dtype == np.uint8:
            factor = np.divide(np.float32(a["x_scale"]), divisor, dtype=np.float32)
            v = np.multiply(total.astype(np.float32), factor, dtype=np.float32)
        else:
            v = np.divide(total, divisor, dtype=np.float32)
    return store(v, a)


def average_pool(x: Array, a: Attributes) -> Array:
    """The mean of each window: the sum of its pixels, by what `count_include_pad` and `overhang` count."""
    axes, overhang = _axes(a), a.get("overhang", (0, 0))
    padding = bool(a.get("count_include_pad"))
    rows, columns = (_counts(axes[i], x.shape[i + 1], padding, overhang[i]) for i in (0, 1))
    return _mean(x, axes, rows[:, None] * columns, a)


def global_average_pool(x: Array, a: Attributes) -> Array:
    """The mean of all pixels: [B, 1, 1, C]."""
    count = np.full((1, 1), x.shape[1] * x.shape[2], np.int64)
    return _mean(x, (Axis(x.shape[1]), Axis(x.shape[2])), count, a)


def pad(x: Array, a: Attributes) -> Array:
    """`value` around the image: `pads` before height, width and channels, then behind them."""
    before, after = (0, *a["pads"][:3]), (0, *a["pads"][3:])
    return np.pad(x, tuple(zip(before, after, strict=True)), constant_values=x.dtype.type(a["value"]))


def to_channels_last(x: Array, a: Attributes) -> Array:
    """[B, C, H, W] as [B, H, W, C]; floats quantized where there is a y_scale."""
    return store(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), a)


def to_channels_first(x: Array, a: Attributes) -> Array:
    """[B, H, W, C] as [B, C, H, W]."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def upsample(x: Array, a: Attributes) -> Array:
    """Every pixel `factors` times, below each other and side by side."""
    down, across = a["factors"]
    return x.repeat(down, 1).repeat(across, 2)
