"""Intervals of numbers: what lies between the ends that any faithful run may give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attributes = Mapping[str, Any]
U = 2.0**-24
"""Half a unit in the last place of binary32, relative."""


@dataclass(frozen=True)
class Bounds:
    """The least and the largest number of each element, f64; equal where an integer is certain."""

    low: Array
    high: Array

    @staticmethod
    def around(centre: Array, radius: Array) -> Bounds:
        return Bounds(centre - radius, centre + radius)

    @property
    def centre(self) -> Array:
        return np.asarray((self.low + self.high) / 2)

    @property
    def radius(self) -> Array:
        return np.asarray((self.high - self.low) / 2)

    @property
    def largest(self) -> Array:
        """The largest magnitude of each element."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    def map(self, move: Callable[[Array], Array]) -> Bounds:
        """Both ends with their axes moved."""
        return Bounds(move(self.low), move(self.high))


def exactly(array: Array) -> Bounds:
    wide = np.asarray(array, np.float64)
    return Bounds(wide, wide)
