"""Affine quantization, x ~ scale * (q - zero_point), as docs/arithmetic.md defines it; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Activation = Literal["s8", "u8"]
Float = NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

WEIGHT_LIMIT = 127
RANGES: dict[str, tuple[int, int]] = {"s8": (-128, 127), "u8": (0, 255)}

# Below this, 1 / scale overflows binary32 or loses bits to subnormals; such a tensor counts as all zero.
SMALLEST_SCALE = np.float32(2.0**-126)


@dataclass(frozen=True)
class Affine:
    """The scale and zero point of one activation tensor.

    scale: binary32, positive. zero_point: the integer that stands for 0. dtype: "s8" (symmetric, zero point
    0) or "u8".
    """

    scale: float
    zero_point: int
    dtype: Activation

    def __post_init__(self) -> None:
        if self.dtype not in RANGES:
            raise ValueError(f'An activation is quantized to "s8" or "u8", not to {self.dtype!r}.')
        if (
            not (np.isfinite(self.scale) and self.scale >= SMALLEST_SCALE)
            or float(np.float32(self.scale)) != self.scale
        ):
            raise ValueError(f"A scale must be a positive normal binary32 number, but it is {self.scale!r}.")
        low, high = RANGES[self.dtype]
        if not low <= self.zero_point <= high:
            raise ValueError(
                f"The zero point of {self.dtype} lies in {low} to {high}, but it is {self.zero_point}."
            )

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer of the type."""
        return RANGES[self.dtype]


def quantize(x: Float, affine: Affine) -> NDArray[np.integer]:
    """int(clamp(rint(x * (1 / scale)))) + zero_point, NaN falling to the lower end.

    x: f32, any shape. Returns s8 or u8 of the same shape.
    """
    low, high = (np.float32(limit - affine.zero_point) for limit in affine.limits)
    v = np.rint(np.asarray(x, np.float32) * (np.float32(1) / np.float32(affine.scale)))
    v = np.where(v > low, v, low)
    v = np.where(v < high, v, high)
    return (v.astype(np.int32) + affine.zero_point).astype(np.int8 if affine.dtype == "s8" else np.uint8)


def dequantize(q: NDArray[np.integer], affine: Affine) -> Float:
    """scale * (q - zero_point) in binary32, any shape."""
    return (q.astype(np.int32) - affine.zero_point).astype(np.float32) * np.float32(affine.scale)


def choose_affine(low: float, high: float, dtype: Activation) -> Affine:
    """The affine map that just covers [low, high] and 0.

    "s8": scale = max(|low|, |high|) / 127, zero point 0.
    "u8": scale = (high - low) / 255, zero point rint(-low / scale).
    A range without extent (only zeros were seen) gives scale 1, which maps 0 to the zero point exactly.
    Raises ValueError for NaN, infinity or low > high.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"A range of values must be finite and in order, but it is [{low}, {high}].")
    low, high = min(low, 0.0), max(high, 0.0)
    extent = max(-low, high) / WEIGHT_LIMIT if dtype == "s8" else (high - low) / 255
    scale = np.float32(extent)
    if not np.isfinite(scale):
        raise ValueError(f"The range [{low}, {high}] is too wide for a binary32 scale.")
    if scale < SMALLEST_SCALE:
        return Affine(1.0, 0, dtype)
    zero_point = 0 if dtype == "s8" else int(np.clip(np.rint(-low / float(scale)), 0, 255))
    return Affine(float(scale), zero_point, dtype)


def choose_affines(
    low: NDArray[np.floating], high: NDArray[np.floating], dtype: Activation
) -> tuple[Float, NDArray[np.int32]]:
    """`choose_affine` for every channel: scales f32 [C] and zero points i32 [C].

    low, high: f64 [C], or [] for one tensor. Raises ValueError as `choose_affine` does, naming the channel.
    """
    shape = np.shape(low)
    maps = [
        _choose_of_channel(channel, float(bottom), float(top), dtype)
        for channel, (bottom, top) in enumerate(zip(np.ravel(low), np.ravel(high), strict=True))
    ]
    scales = np.array([affine.scale for affine in maps], np.float32).reshape(shape)
    return scales, np.array([affine.zero_point for affine in maps], np.int32).reshape(shape)


def _choose_of_channel(channel: int, low: float, high: float, dtype: Activation) -> Affine:
    try:
        return choose_affine(low, high, dtype)
    except ValueError as error:
        raise ValueError(f"Channel {channel}: {error}") from error


def weight_scales(weight: Float, name: str, axis: int = 0) -> Float:
    """max |w| / 127 of every output channel; 1 for a channel of zeros,
    whose integers are zeros whatever the scale.

    weight: f32, any shape. name: the layer, for the message. axis: where the output channels lie, 0 but for
    the transposed convolution, whose weight has them at 1. Returns f32 [N].
    Raises ValueError if a value is NaN or infinite, naming the first such channel.
    """
    first = np.moveaxis(np.asarray(weight, np.float32), axis, 0)
    rows = first.reshape(first.shape[0], -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name}: output channel {bad[0]} of the weight holds NaN or infinity ({bad.size} of "
            f"{len(rows)} channels do), which no scale can represent; look for what made it."
        )
    scales = np.abs(rows).max(axis=1, initial=0.0).astype(np.float32) / np.float32(WEIGHT_LIMIT)
    return np.where(scales < SMALLEST_SCALE, np.float32(1), scales)


def quantize_weight(weight: Float, scales: Float, axis: int = 0) -> NDArray[np.int8]:
    """clamp(rint(w * (1 / scale)), -127, 127) per output channel; zeros stay zeros.

    weight: f32, any shape. scales: f32 [N], of the channels along `axis`. Returns s8 of the weight's shape.
    """
    inverse = along(np.float32(1) / np.asarray(scales, np.float32), weight.ndim, axis)
    v = np.rint(np.asarray(weight, np.float32) * inverse)
    clamped: NDArray[np.int8] = np.clip(v, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
    return clamped


def dequantize_weight(q: NDArray[np.int8], scales: Float, axis: int = 0) -> Float:
    """scale * q per output channel: s8 of any shape, and f32 [N] along `axis`, to f32 of q's shape."""
    product: Float = q.astype(np.float32) * along(np.asarray(scales, np.float32), q.ndim, axis)
    return product


def along(values: NDArray[Number], dimensions: int, axis: int) -> NDArray[Number]:
    """`values` [N] in a shape that lies along `axis` of a tensor of that many dimensions."""
    shape = [1] * dimensions
    shape[axis] = -1
    return values.reshape(shape)
