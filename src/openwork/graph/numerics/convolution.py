"""Convolutions of images [B, H, W, C] in NumPy, with the bits of docs/arithmetic.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.binary32 import Float, factors, fma
from openwork.graph.numerics.epilogue import Channels, finish, looked_up

Array = NDArray[Any]
Attributes = Mapping[str, Any]


def conv(
    x: Array,
    residual: Array | None,
    weight: Array,
    weight_scale: Float | None,
    bias: Float | None,
    y_multiplier: Float | None,
    lookup: NDArray[np.uint8] | None,
    a: Attributes,
) -> Array:
    """x [B, H, W, C] and weight [N, KH, KW, C / groups]: u8 and s8, exact, or both f32; then the epilogue.

    A weight may be BF16 (uint16), to which x is then rounded.
    """
    n = len(weight)
    offset = np.zeros(n, np.float32) if bias is None else bias
    if weight_scale is None:
        total, scale = _sums_of_floats(*factors(x, weight), a), np.ones(n, np.float32)
    else:
        # Sums stay below 2^53, so binary64 holds them exactly in any order.
        centred = x.astype(np.float64) - a["x_zero_point"]
        total = _sums_of_integers(centred, weight.astype(np.float64), a).astype(np.float32)
        scale = np.float32(a["x_scale"]) * weight_scale
    return looked_up(finish(total, Channels(scale, offset, y_multiplier), residual, a), lookup)


def _sums_of_integers(x: Array, weight: Array, a: Attributes) -> Array:
    """The sums of products, tap by tap, each tap a matrix product of every group."""
    total = np.zeros((), x.dtype)
    for (row, column), pixels in taps(x, weight.shape[1:3], a):
        by_group = _grouped(pixels, x.shape[-1] // weight.shape[-1])
        of_group = weight[:, row, column].reshape(by_group.shape[3], -1, weight.shape[-1])
        total = total + np.einsum("bhwgc,gnc->bhwgn", by_group, of_group)
    return total.reshape(*total.shape[:3], -1)


def _sums_of_floats(x: Float, weight: Float, a: Attributes) -> Float:
    """One fma for each tap, row by row, and each input channel, in increasing order."""
    groups = x.shape[-1] // weight.shape[-1]
    total: Any = np.zeros((), np.float32)
    for (row, column), pixels in taps(x, weight.shape[1:3], a):
        by_group = _grouped(pixels, groups)
        of_group = weight[:, row, column].reshape(groups, -1, weight.shape[-1])
        for channel in range(weight.shape[-1]):
            total = fma(by_group[..., channel, None], of_group[..., channel], total)
    return np.asarray(total.reshape(*total.shape[:3], -1), np.float32)


def _grouped(pixels: Array, groups: int) -> Array:
    return pixels.reshape(*pixels.shape[:3], groups, -1)


def taps(x: Array, kernel: tuple[int, ...], a: Attributes, outside: Any = 0) -> Any:
    """For each tap, row by row: its place, and the pixel that each window [B, P, Q] sees there, `outside`
    where that lies in the padding."""
    top, left, bottom, right = a["pads"]
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=outside)
    spread = [(size - 1) * step for size, step in zip(kernel, a["dilations"], strict=True)]
    ends = [size - reach for size, reach in zip(padded.shape[1:3], spread, strict=True)]
    for place in np.ndindex(*kernel[:2]):
        first = [tap * step for tap, step in zip(place, a["dilations"], strict=True)]
        rows, columns = (
            slice(begin, begin + end, step)
            for begin, end, step in zip(first, ends, a["strides"], strict=True)
        )
        yield place, padded[:, rows, columns]
