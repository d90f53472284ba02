"""Activations in NumPy, with the order of operations and the bits of docs/arithmetic.md.

Arrays are float32 throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openwork.graph.numerics.binary32 import Float, fma, gelu, horner, maximum, minimum, quiet, relu
from openwork.graph.numerics.coefficients import (
    GELU_TANH,
    SILU,
    SILU_CLAMP,
    SILU_STEPS,
    TANH,
    TANH_CLAMP,
    TANH_STEPS,
)

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_SIXTH = np.float32(1) / np.float32(6)


def _piecewise(table: Float, steps: np.float32, a: Float) -> Float:
    """The quartic of the piece that 1 + steps * a lies in: four pieces in each octave of it."""
    place: np.ndarray = fma(a, steps, _ONE)
    return horner(table[:, place.view(np.int32) >> 21 & 15], a)


def silu(v: Float) -> Float:
    """v / (1 + exp(-v)), as max(0, v) - |v| / (1 + exp(|v|)); error below 1e-6."""
    p = _piecewise(SILU, SILU_STEPS, minimum(np.abs(v), SILU_CLAMP))
    with quiet():
        return np.subtract(maximum(_ZERO, v), p, dtype=np.float32)


def tanh(v: Float) -> Float:
    """The hyperbolic tangent; error below 1e-6."""
    return np.copysign(_piecewise(TANH, TANH_STEPS, minimum(TANH_CLAMP, np.abs(v))), v)


def sigmoid(v: Float) -> Float:
    """1 / (1 + exp(-v)), as (1 + tanh(v / 2)) / 2; error below 5.1e-7."""
    return fma(tanh(np.multiply(v, _HALF, dtype=np.float32)), _HALF, _HALF)


def clip(v: Float, low: float, high: float) -> Float:
    """v between low and high; NaN becomes low."""
    return minimum(maximum(v, np.float32(low)), np.float32(high))


def leaky_relu(v: Float, slope: float) -> Float:
    """v, or slope * v where v is negative."""
    return fma(np.float32(slope), minimum(_ZERO, v), maximum(v, _ZERO))


def hard_sigmoid(v: Float, factor: float, summand: float) -> Float:
    """factor * v + summand between 0 and 1."""
    return maximum(_ZERO, minimum(_ONE, fma(np.float32(factor), v, np.float32(summand))))


def hard_swish(v: Float) -> Float:
    """v times v / 6 + 1 / 2 between 0 and 1."""
    with quiet():
        return np.multiply(v, hard_sigmoid(v, float(_SIXTH), 0.5), dtype=np.float32)


_WITHOUT_NUMBERS: dict[str, Callable[[Float], Float]] = {
    "none": lambda v: v,
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda v: gelu(v, GELU_TANH),
    "silu": silu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "hard_swish": hard_swish,
}


def activate(v: Float, activation: str, alpha: float = 0.0, beta: float = 0.0) -> Float:
    """The activation of this name; `openwork.engine.operators` says which of alpha and beta it has.

    Raises KeyError for a name that docs/arithmetic.md does not have.
    """
    if activation == "clip":
        return clip(v, alpha, beta)
    if activation == "leaky_relu":
        return leaky_relu(v, alpha)
    if activation == "hard_sigmoid":
        return hard_sigmoid(v, alpha, beta)
    return _WITHOUT_NUMBERS[activation](v)
