"""A product's weight as one matrix, in whose rows patterns are found, kept and stored.

A matrix [n, k] is itself. Of a convolution's weight [n, kernel height, kernel width, channels of a group] a
row holds one tap of one output channel, tap after tap: [taps * n, channels], so that adjacent output channels
lie side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def as_matrix(weight: Array) -> Array:
    """The matrix of a weight."""
    if weight.ndim == 2:
        return weight
    n, height, width, channels = weight.shape
    return np.ascontiguousarray(weight.transpose(1, 2, 0, 3)).reshape(height * width * n, channels)


def from_matrix(matrix: Array, shape: tuple[int, ...]) -> Array:
    """The weight of a shape whose matrix this is."""
    if len(shape) == 2:
        return matrix
    n, height, width, channels = shape
    return np.ascontiguousarray(matrix.reshape(height, width, n, channels).transpose(2, 0, 1, 3))


def matrix_width(attributes: Mapping[str, Any], channels: int) -> int:
    """The columns of the matrix of a product's weight: the input channels, or those of a group."""
    return channels // int(attributes.get("groups", 1))


def shape_of(attributes: Mapping[str, Any], rows: int, columns: int) -> tuple[int, ...] | None:
    """The shape of the weight whose matrix has so many rows and columns; None where there is none."""
    if "kernel" not in attributes:
        return rows, columns
    taps = prod(attributes["kernel"])
    return None if rows % taps else (rows // taps, *attributes["kernel"], columns)
