"""What happens to the sums of a product, in NumPy, with the bits of docs/arithmetic.md, "Epilogue"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.activations import activate
from openwork.graph.numerics.binary32 import Float, fma, quantize, quiet

Array = NDArray[Any]
Attributes = Mapping[str, Any]
MOST_UNITS = 2.0**30
"""What a sum in units of the output stays below, so that INT32 holds it."""


@dataclass(frozen=True)
class Channels:
    """The numbers of each output channel, f32 [N]: of the sums, and the multiplier of a quantized output."""

    scale: Float
    bias: Float
    multiplier: Float | None = None


def apply_activation(v: Float, a: Attributes) -> Float:
    """The activation that a node's attributes name, with their numbers."""
    return activate(v, a["activation"], a.get("alpha", 0.0), a.get("beta", 0.0))


def is_linear(a: Attributes, residual: bool) -> bool:
    """Whether the values before they are clamped are linear in the sums and the residual."""
    kind = a["activation"]
    return kind == "none" or (kind in ("relu", "clip") and (not residual or bool(a.get("activation_last"))))


def finish(total: Float, channels: Channels, residual: Array | None, a: Attributes) -> Array:
    """The outputs [..., N] of the sums, INT32 made f32: scaled, activated, added to, and stored."""
    if residual is not None and "sum_scale" in a:
        return _rounded(total, channels, residual, a)
    if "y_scale" in a and is_linear(a, residual is not None):
        scaled = _Scaled.of(channels, residual, a)
        if scaled.finite():
            return scaled.finish(total, residual, a)
    v = fma(total, channels.scale, channels.bias)
    last = bool(a.get("activation_last"))
    v = v if last else apply_activation(v, a)
    v = v if residual is None else _added(v, residual, a)
    return store(apply_activation(v, a) if last else v, a, channels.multiplier)


def _rounded(total: Float, channels: Channels, residual: Array, a: Attributes) -> Array:
    """The sums rounded to u8 and back, and the residual added to that."""
    plain = {"activation": "none", "y_scale": a["sum_scale"], "y_zero_point": a["sum_zero_point"]}
    inner = finish(total, Channels(channels.scale, channels.bias), None, plain)
    centred = inner.astype(np.float32) - np.float32(a["sum_zero_point"])
    if "y_scale" in a and residual.dtype == np.uint8 and is_linear(a, True):
        found = _rounded_in_units(centred, channels, residual, a)
        if found is not None:
            return found
    with quiet():
        v = centred * np.float32(a["sum_scale"])
        other = residual
        if residual.dtype == np.uint8:
            point = np.float32(a["residual_zero_point"])
            other = (residual.astype(np.float32) - point) * np.float32(a["residual_scale"])
        v = np.add(v, other, dtype=np.float32)
    return store(apply_activation(v, a), a, channels.multiplier)


def _rounded_in_units(centred: Float, channels: Channels, residual: Array, a: Attributes) -> Array | None:
    """The same in units of the output; None where a number leaves what the order holds for."""
    with quiet():
        inverse = np.broadcast_to(np.float32(1) / np.float32(a["y_scale"]), channels.scale.shape)
        if channels.multiplier is not None:
            inverse = channels.multiplier * inverse
        factor, other = np.float32(a["sum_scale"]) * inverse, np.float32(a["residual_scale"]) * inverse
        bias = np.float32(-a["residual_zero_point"]) * other
        reach = 255.0 * (np.abs(factor.astype(np.float64)) + 2.0 * np.abs(other.astype(np.float64)))
        if not (reach < MOST_UNITS).all():
            return None
        v = fma(centred, factor, fma(residual.astype(np.float32), other, bias))
    low, high = _ends(inverse, a)
    q: NDArray[np.uint8] = quantize(v, 1.0, a["y_zero_point"])
    return np.minimum(np.maximum(q, low), high)


def store(v: Float, a: Attributes, multiplier: Float | None = None) -> Array:
    """v as it is, or quantized (after the multiplier of each channel) where the operator has y_scale."""
    return quantize(v, a["y_scale"], a["y_zero_point"], multiplier) if "y_scale" in a else v


def looked_up(y: Array, table: NDArray[np.uint8] | None) -> Array:
    """What a table of 256 bytes holds for each u8; y itself without one."""
    return y if table is None else table[y]


def _added(v: Float, residual: Array, a: Attributes) -> Float:
    if residual.dtype == np.uint8:
        centred = residual.astype(np.float32) - np.float32(a["residual_zero_point"])
        return fma(centred, np.float32(a["residual_scale"]), v)
    with quiet():
        return np.add(v, residual, dtype=np.float32)


@dataclass(frozen=True)
class _Scaled:
    """The numbers of each channel in units of the output."""

    inverse: Float
    scale: Float
    bias: Float
    factor: Float

    @staticmethod
    def of(channels: Channels, residual: Array | None, a: Attributes) -> _Scaled:
        with quiet():
            inverse = np.broadcast_to(np.float32(1) / np.float32(a["y_scale"]), channels.scale.shape)
            if channels.multiplier is not None:
                inverse = channels.multiplier * inverse
            factor, bias = inverse, channels.bias * inverse
            if residual is not None and residual.dtype == np.uint8:
                factor = np.float32(a["residual_scale"]) * inverse
                if a["residual_zero_point"]:
                    bias = fma(np.float32(-a["residual_zero_point"]), factor, bias)
            return _Scaled(inverse, channels.scale * inverse, bias, factor)

    def finite(self) -> bool:
        return all(bool(np.isfinite(numbers).all()) for numbers in (self.scale, self.bias, self.factor))

    def finish(self, total: Float, residual: Array | None, a: Attributes) -> NDArray[np.uint8]:
        v = fma(total, self.scale, self.bias)
        if residual is not None:
            v = fma(residual.astype(np.float32), self.factor, v)
        low, high = _ends(self.inverse, a)
        q: NDArray[np.uint8] = quantize(v, 1.0, a["y_zero_point"])
        return np.minimum(np.maximum(q, low), high)


def _ends(inverse: Float, a: Attributes) -> tuple[Array, Array]:
    """The least and the largest u8 of each channel."""
    low, high = {"relu": (0.0, np.inf), "clip": (a.get("alpha"), a.get("beta"))}.get(
        a["activation"], (-np.inf, np.inf)
    )
    return tuple(quantize(np.float32(end) * inverse, 1.0, a["y_zero_point"]) for end in (low, high))  # type: ignore[return-value]
