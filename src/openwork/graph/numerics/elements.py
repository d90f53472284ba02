"""The meaning of operators on the elements of two values in NumPy, with the bits of docs/arithmetic.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.binary32 import Float, quiet
from openwork.graph.numerics.epilogue import apply_activation, store

Array = NDArray[Any]
Attributes = Mapping[str, Any]


def dequantized(x: Array, a: Attributes, name: str) -> Float:
    """x as floats, (x - NAME_zero_point) * NAME_scale; x itself where it is f32."""
    if x.dtype != np.uint8:
        return x
    with quiet():
        centred = x.astype(np.float32) - np.float32(a[f"{name}_zero_point"])
        return np.asarray(centred * np.float32(a[f"{name}_scale"]), np.float32)


def on_two_values(
    made: Callable[..., Array],
) -> Callable[[Array, Array | None, Float | None, Attributes], Array]:
    """An operator on two values: each dequantized, `made` of both, the activation, quantized."""

    def meaning(x: Array, y: Array | None, constant: Float | None, a: Attributes) -> Array:
        if y is not None:
            other = dequantized(y, a, "b")
        elif constant is not None:
            other = constant if constant.size > 1 else constant.reshape(())
        with quiet():
            v = np.asarray(made(dequantized(x, a, "a"), other), np.float32)
        return store(apply_activation(v, {"activation": "none", **a}), a)

    return meaning
