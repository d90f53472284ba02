"""The meaning of GroupNorm in NumPy, with the bits of docs/arithmetic.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics.binary32 import Float, fma, quiet
from openwork.graph.numerics.epilogue import apply_activation, store

CHAINS, BLOCK = 4, 256
"""Pixels are summed in so many chains, anew for each block of them."""


def _sum_pixels(x: Float, add: Callable[[Float, Float], Float]) -> Float:
    """For each image and channel of x [B, pixels, C] the sum over the pixels, in the order of the page."""
    total = np.zeros((x.shape[0], x.shape[2]), np.float32)
    for begin in range(0, x.shape[1], BLOCK):
        chains = [np.zeros_like(total) for _ in range(CHAINS)]
        for place, pixel in enumerate(range(begin, min(begin + BLOCK, x.shape[1]))):
            chains[place % CHAINS] = add(chains[place % CHAINS], x[:, pixel])
        total = total + ((chains[0] + chains[2]) + (chains[1] + chains[3]))
    return total


def _mean_of_groups(sums: Float, groups: int, pixels: int) -> Float:
    """Sums of channels [B, C] to the mean of each channel's group, [B, 1, C]."""
    of_groups = sums.reshape(sums.shape[0], groups, -1)
    total = np.zeros(of_groups.shape[:2], np.float32)
    for channel in range(of_groups.shape[2]):
        total = total + of_groups[:, :, channel]
    mean: Float = np.divide(total, np.float32(of_groups.shape[2] * pixels), dtype=np.float32)
    made: Float = np.repeat(mean, of_groups.shape[2], axis=1)[:, None]
    return made


def group_norm(
    x: Float, shift: Float | None, gamma: Float, beta: Float, a: Mapping[str, Any]
) -> NDArray[Any]:
    """Normalize each group of channels of each image [B, H, W, C] to mean 0 and variance 1, scale and shift
    each channel, and apply the activation; `shift` is added to all pixels before."""
    with quiet():
        rows = (x if shift is None else x + shift).reshape(x.shape[0], -1, x.shape[3])
        pixels = rows.shape[1]
        d = rows - _mean_of_groups(_sum_pixels(rows, np.add), a["groups"], pixels)
        variance = _mean_of_groups(_sum_pixels(d, lambda total, v: fma(v, v, total)), a["groups"], pixels)
        rstd = np.float32(1) / np.sqrt(variance + np.float32(a["epsilon"]))
        y = apply_activation(fma(d * rstd, gamma, beta), a)
    return store(y.reshape(x.shape), a)
