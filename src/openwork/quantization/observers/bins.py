"""One channel's histogram as a rule for choosing a range sees it, and the rule for searching one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ends = NDArray[np.int64]
Costs = NDArray[np.float64]

# The cost of the ranges [low[i], high[i]], edges of bins counted from zero: f64 [n].
RangeCost = Callable[[Ends, Ends], Costs]

# Costs this close, relative to the least, are equal but for rounding; the widest such range is taken.
EQUAL = 1e-12

# Ranges whose costs are found at once.
PART = 128

# How often the upper end and then the lower end of a range are searched; each time the other one is kept.
ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Bins:
    """Counts of the values that are not zero, in bins of one width; zero lies on the edge before bin `below`.

    counts: i64 [N]. below: how many bins hold negative values. width: of a bin. zeros: values that are zero.
    low, high: the least and the largest value. folded: the values are magnitudes, and stand for both signs.
    """

    counts: NDArray[np.int64]
    below: int
    width: float
    zeros: int
    low: float
    high: float
    folded: bool

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The edges of the narrowest range that holds zero and all counts, counted from zero."""
        held = np.flatnonzero(self.counts)
        if not held.size:
            return 0, 0
        return min(0, int(held[0]) - self.below), max(0, int(held[-1]) + 1 - self.below)

    def coarsened(self, most: int) -> Bins:
        """Neighbours summed, by a power of two,
        until at most `most` bins lie between zero and the farther end."""
        group = 1
        while max(-self.ends[0], self.ends[1]) > most * group:
            group *= 2
        # Whole groups on either side of zero: the histogram has a power of two of bins for each sign.
        counts = self.counts.reshape(-1, group).sum(axis=1)
        return replace(self, counts=counts, below=self.below // group, width=self.width * group)

    def range_of(self, low: int, high: int) -> tuple[float, float]:
        """Edges of bins as values, not beyond what was seen."""
        return max(low * self.width, min(self.low, 0.0)), min(high * self.width, max(self.high, 0.0))


def prefix(values: NDArray[np.generic]) -> Costs:
    """p[i] = the sum of the first i values, in f64: [N + 1]."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def search_range(bins: Bins, cost: RangeCost, step: int, least: int) -> tuple[int, int]:
    """The edges of the range with the least cost, by searching one end at a time.

    step: the distance of the edges that are tried. least: the narrowest range tried, in bins.
    """
    low, high = first, last = bins.ends
    if low == high:
        return low, high
    for _ in range(ROUNDS):
        tops = _tried(last, step, min(low + least, last))
        high = int(tops[_argmin(_in_parts(cost, np.full_like(tops, low), tops))])
        if first == 0:
            break
        bottoms = -_tried(-first, step, min(least - high, -first))
        low = int(bottoms[_argmin(_in_parts(cost, bottoms, np.full_like(bottoms, high)))])
    return low, high


def _in_parts(cost: RangeCost, low: Ends, high: Ends) -> Costs:
    """The costs, of `PART` ranges at a time: what is worked on stays in the cache."""
    return np.concatenate([cost(low[i : i + PART], high[i : i + PART]) for i in range(0, len(low), PART)])


def _tried(end: int, step: int, nearest: int) -> Ends:
    """Edges from `end`, the farthest, to `nearest` or 0, in steps: i64 [n]."""
    return np.arange(end, max(nearest, 0) - 1, -step, dtype=np.int64)


def _argmin(costs: Costs) -> int:
    """The first, so the widest, whose cost is the least or equal to it."""
    least = float(costs.min())
    return int(np.argmax(costs <= least + EQUAL * abs(least))) if np.isfinite(least) else 0
