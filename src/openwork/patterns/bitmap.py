"""The canonical compressed form of weights whose zeros follow no N:M pattern (docs/program.md): a bitmap and
the non-zero values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Weights = NDArray[Any]
"""s8, BF16 as uint16, or f32."""

WEIGHT_TYPES = (np.dtype(np.int8), np.dtype(np.uint16), np.dtype(np.float32))


@dataclass(frozen=True)
class Bitmap:
    """A weight matrix of `n` output and `k` input channels, its zeros anywhere.

    bits : u8 [n, ceil(k / 8)], bit i % 8 of byte i / 8 of a row set where its weight i is not zero.
    values : s8, BF16 or f32 [number of bits set], the non-zero weights, row by row in order of their
    position.
    k : input channels.
    """

    bits: Bytes
    values: Weights
    k: int

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.bits.nbytes + self.values.nbytes


def compress(weight: Weights) -> Bitmap:
    """Store a weight s8 or f32 [n, k] whose zeros may be anywhere.

    raises ValueError where the weight has another type or shape or is empty.
    """
    if weight.ndim != 2 or weight.dtype not in WEIGHT_TYPES or not weight.size:
        raise ValueError(
            f"A weight is compressed from a non-empty int8, uint16 (BF16) or float32 [n, k], but it is "
            f"{weight.dtype} {list(weight.shape)}."
        )
    bits = np.packbits(weight != 0, axis=1, bitorder="little")
    return Bitmap(bits, weight[weight != 0], weight.shape[1])


def decompress(bitmap: Bitmap) -> Weights:
    """The dense weight s8 or f32 [n, k]; raises ValueError, naming what is wrong, unless the form is the
    canonical one."""
    kept = mask(bitmap)
    dense = np.zeros(kept.shape, bitmap.values.dtype)
    # Writing through a boolean mask takes five times as long.
    dense.reshape(-1)[np.flatnonzero(kept)] = bitmap.values
    return dense


def check(bitmap: Bitmap) -> None:
    """Refuse, with a ValueError, whatever `compress` would not have written: each byte has one right
    value."""
    mask(bitmap)


def mask(bitmap: Bitmap) -> NDArray[np.bool_]:
    """Where the weight is not zero, bool [n, k]; raises what `decompress` raises."""
    bits, values, k = bitmap.bits, bitmap.values, bitmap.k
    typed = bits.dtype == np.uint8 and values.dtype in WEIGHT_TYPES
    if bits.ndim != 2 or values.ndim != 1 or not typed:
        raise ValueError(
            "A bitmap weight has uint8 bits [n, bytes] and int8, uint16 (BF16) or float32 values "
            "[number of bits set]."
        )
    if k < 1 or not len(bits) or bits.shape[1] != -(-k // 8):
        raise ValueError(
            f"A bitmap weight with {k} input channels has bits [n, {-(-k // 8)}], n and the channels at "
            f"least 1, but they are {list(bits.shape)}."
        )
    flat = np.unpackbits(bits, axis=1, bitorder="little").view(np.bool_)
    if flat[:, k:].any():
        raise ValueError(f"A bitmap weight has bits set beyond its {k} input channels.")
    kept = flat[:, :k]
    if len(values) != np.count_nonzero(kept):
        raise ValueError(
            f"A bitmap weight has {np.count_nonzero(kept)} bits set and so as many values, but there are "
            f"{len(values)}."
        )
    if not values.all():
        raise ValueError(
            f"A bitmap weight has a zero among its values, at {int(np.argmin(values != 0))}; a zero weight "
            f"has no bit and no value."
        )
    return kept
