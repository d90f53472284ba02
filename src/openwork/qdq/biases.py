"""Biases as INT32 in units of the products that they are added to; NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIMIT = 2**31 - 1

Float = NDArray[np.float32]


def quantized_bias(
    bias: Float, x_scale: Float, weight_scale: Float
) -> tuple[NDArray[np.int32], Float] | None:
    """bias ~ integers * unit, unit = x_scale * weight_scale, which is off by half a unit at most.

    bias: f32 [C]. x_scale: f32 []. weight_scale: f32 [] or [C]. Returns i32 [C] and f32 [C]; None where INT32
    cannot hold the integers, or a unit is no normal binary32 number.
    """
    unit = np.broadcast_to(x_scale * weight_scale, bias.shape).astype(np.float32)
    integers = np.rint(bias.astype(np.float64) / unit)
    if bool((np.abs(integers) > LIMIT).any()) or bool((unit < np.finfo(np.float32).tiny).any()):
        return None
    return integers.astype(np.int32), unit
