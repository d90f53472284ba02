"""One layer with numbers in it, and what it must give, computed by none of those who are timed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import weights
from .shapes import Convolution, Layer

Array = NDArray[Any]
Floats = NDArray[np.float64]

TYPES = ("int8", "bf16", "fp32")
MOST_CHECKED_ROWS = 384

X_SCALE, X_ZERO_POINT, Y_ZERO_POINT = np.float32(1 / 64), 128, 128


@dataclass(frozen=True)
class Problem:
    """A layer in one type and pattern.

    x : u8 or f32 of the shape's `x_shape`; BF16 numbers are kept as the f32 of the same value. weight : s8 or
    f32 of its `weight_shape`. bias : f32 [n]. weight_scale : f32 [n], INT8 only. y_scale : INT8 only.
    """

    layer: Layer
    type: str
    pattern: str
    x: Array
    weight: Array
    bias: NDArray[np.float32]
    weight_scale: NDArray[np.float32]
    y_scale: np.float32

    @property
    def density(self) -> float:
        """The fraction of weights that are not zero."""
        return np.count_nonzero(self.weight) / self.weight.size


def make(layer: Layer, kind: str, pattern: str, seed: int) -> Problem:
    """Random numbers without zeros, but for the pattern's; the same ones for the same arguments."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{layer} {kind}".encode())])
    shape = layer.shape
    x = rng.integers(0, 256, shape.x_shape, np.uint8)
    dense = rng.integers(1, 128, shape.weight_shape, np.int8)
    dense *= rng.choice(np.array([-1, 1], np.int8), shape.weight_shape)
    bias = rng.uniform(-1, 1, shape.n).astype(np.float32)
    scale = rng.uniform(0.5, 1.5, shape.n).astype(np.float32) / np.float32(1024)
    kept = weights.mask(rng, shape, pattern).reshape(shape.weight_shape)
    weight = np.where(kept, dense, np.int8(0))
    # Sums of products of spread 74 and 73: three deviations fill half of the 256 numbers of y.
    deviation = 74 * 73 * max(1.0, np.count_nonzero(kept) / shape.n) ** 0.5
    y_scale = np.float32(deviation * X_SCALE / 1024 * 3 / 128)
    if kind != "int8":
        x = _floats((x.astype(np.float32) - 127.5) / 64, kind)
        weight = _floats(weight * np.float32(1 / 64), kind)
    return Problem(layer, kind, pattern, x, weight, bias, scale, y_scale)


def _floats(values: Array, kind: str) -> NDArray[np.float32]:
    """Values of the type; in FP32 of more than BF16's bits."""
    values = (values * np.float32(1.0009765)).astype(np.float32)
    return values if kind == "fp32" else from_bf16(to_bf16(values))


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest BF16, ties to even. The values are finite."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers that BF16 bits stand for."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def checked_rows(problem: Problem) -> NDArray[np.int64]:
    """The rows of y that are compared: all, or evenly many of them with the first and the last."""
    rows = problem.layer.shape.rows
    return np.unique(np.linspace(0, rows - 1, min(rows, MOST_CHECKED_ROWS)).astype(np.int64))


@dataclass(frozen=True)
class Exact:
    """Rows of the product in binary64: `sums` without bias, and `magnitude`, the sums of |x| |w|."""

    rows: NDArray[np.int64]
    sums: Floats
    magnitude: Floats

    def taken(self, y: Array) -> Array:
        """The same rows of a y of any layout with the channels last."""
        return y.reshape(-1, y.shape[-1])[self.rows]


def exact(problem: Problem) -> Exact:
    """The product of `checked_rows`: for INT8 of x less its zero point, every integer exact."""
    rows = checked_rows(problem)
    x = patches(problem, rows)
    weight = problem.weight.astype(np.float64).reshape(problem.layer.shape.n, -1)
    groups = problem.layer.shape.groups
    parts = list(zip(np.split(x, groups, axis=1), np.split(weight, groups), strict=True))

    def product(of_x: Any, of_weight: Any) -> Floats:
        return np.concatenate([of_x(a.reshape(len(rows), -1)) @ of_weight(b).T for a, b in parts], axis=1)

    sums = product(lambda a: a, lambda b: b)
    return Exact(rows, sums, sums if problem.type == "int8" else product(np.abs, np.abs))


def patches(problem: Problem, rows: NDArray[np.int64]) -> Floats:
    """What the rows of y read: binary64 [rows, groups, k], zero where the padding is."""
    shape = problem.layer.shape
    x = problem.x.astype(np.float64) - (X_ZERO_POINT if problem.type == "int8" else 0)
    if not isinstance(shape, Convolution):
        return x[rows][:, None]
    (top, left), (height, width) = shape.padding, shape.out
    padded = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    image, pixel = rows // (height * width), rows % (height * width)
    y, x_at = pixel // width * shape.stride[0], pixel % width * shape.stride[1]
    taps = [
        padded[image, y + i * shape.dilation[0], x_at + j * shape.dilation[1]]
        for i in range(shape.kernel[0])
        for j in range(shape.kernel[1])
    ]
    stacked = np.stack(taps, axis=1)  # [rows, taps, channels]
    grouped = stacked.reshape(len(rows), shape.taps, shape.groups, -1)
    return grouped.transpose(0, 2, 1, 3).reshape(len(rows), shape.groups, -1)


def quantized(problem: Problem, truth: Exact) -> Array:
    """The u8 that a layer with bias gives for the exact sums, in binary64 but for the scales."""
    scale = X_SCALE * problem.weight_scale.astype(np.float64)
    y = (truth.sums * scale + problem.bias) / problem.y_scale
    clipped: Array = np.clip(np.rint(y) + Y_ZERO_POINT, 0, 255)
    return clipped


def verify(problem: Problem, truth: Exact, y: Array, who: str) -> None:
    """Raise ValueError unless y is the layer with its bias: u8 within 1, floats within their rounding.

    who : names the one who made y, at the beginning of the sentence.
    """
    found = truth.taken(y).astype(np.float64)
    if problem.type == "int8":
        wrong = np.abs(found - quantized(problem, truth)) > 1
    else:
        wrong = np.abs(found - (truth.sums + problem.bias)) > float_bound(problem, truth, problem.bias)
    refuse(problem, wrong, who)


def refuse(problem: Problem, wrong: NDArray[np.bool_], who: str) -> None:
    """Raise ValueError, saying how many numbers are wrong, if any is."""
    if wrong.any():
        raise ValueError(
            f"{who} gives {np.count_nonzero(wrong)} wrong numbers of {wrong.size} for {problem.layer} "
            f"({problem.layer.shape}, {problem.type}, {problem.pattern}); its time would mean nothing."
        )


def float_bound(problem: Problem, truth: Exact, bias: Any) -> Floats:
    """How far a sum of floats may be off.

    gamma_(k+2) = (k + 2) u / (1 - (k + 2) u) times the sum of magnitudes, with u = 2^-23 for products whose
    own rounding counts (Higham 2002, section 3.1); in BF16 the bias and the stored result are rounded to 8
    bits.
    """
    u = 2.0**-23
    terms = (problem.layer.shape.k + 2) * u
    bound: Floats = terms / (1 - terms) * (truth.magnitude + np.abs(bias))
    if problem.type == "bf16":
        bound = bound + 2.0**-8 * (np.abs(truth.sums + bias) + np.abs(bias)) * (1 + terms)
    return bound
