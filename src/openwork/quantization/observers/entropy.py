"""The range whose quantized values tell least apart from the float ones:
the least Kullback-Leibler divergence.

For a range of bins: P is the histogram within it, what lies outside added to the bins at its ends; Q is the
histogram within it, without the tails, collapsed to as many levels as there are integers and expanded again,
every level's count spread evenly over its bins that are not empty. The divergence is sum p log(p / q) of the
two, normalized. Values that are exactly zero are left out: zero is represented exactly whatever the range,
and the many zeros after a relu would be spread over the values beside them.

Source: Migacz 2017, "8-bit Inference with TensorRT"; the search of a lower end, for asymmetric integers,
is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openwork.quantization.observers.bins import Bins, Costs, Ends, prefix, search_range

# Bins between zero and the largest value that the search looks at: 2048 at least, as in pytorch-quantization.
MOST_BINS = 4096

SYMMETRIC_LEVELS = 128
LEVELS = 256


@dataclass(frozen=True)
class Entropy:
    """The range of the least divergence, searched over all edges of bins that leave each level one bin."""

    def __call__(self, bins: Bins) -> tuple[float, float]:
        coarse = bins.coarsened(MOST_BINS)
        levels = SYMMETRIC_LEVELS if bins.folded else LEVELS
        low, high = search_range(coarse, Divergence(coarse, levels), 1, levels)
        return coarse.range_of(low, high)


class Divergence:
    """The divergence of ranges of bins, each in O(levels) by sums over the bins made once."""

    def __init__(self, bins: Bins, levels: int) -> None:
        self.levels, self.below = levels, bins.below
        self.counts = bins.counts.astype(np.float64)
        self.total = float(self.counts.sum())
        self.sums, self.filled = prefix(self.counts), prefix(self.counts > 0)
        self.entropies = prefix(_x_log_x(self.counts))

    def __call__(self, low: Ends, high: Ends) -> Costs:
        """The divergence of [low[i], high[i]): f64 [n], infinite where an end is empty and its tail is
        not."""
        start, end = low + self.below, high + self.below
        edges = start[:, None] + -(-np.arange(self.levels + 1) * (end - start)[:, None] // self.levels)
        sums, filled = np.diff(self.sums[edges], axis=1), np.diff(self.filled[edges], axis=1)
        spread = np.log(np.divide(sums, filled, out=np.ones_like(sums), where=filled > 0))
        inside = self.sums[end] - self.sums[start]
        own = self.entropies[end] - self.entropies[start] - (sums * spread).sum(axis=1)
        first, last = start, np.maximum(end - 1, start)
        level_of_last = np.argmax(edges[:, 1:] >= end[:, None], axis=1)
        level_of_first = np.argmax(edges[:, 1:] > start[:, None], axis=1)
        rows = np.arange(len(start))
        lower = self._tail(self.sums[start], first, spread[rows, level_of_first])
        upper = self._tail(self.total - self.sums[end], last, spread[rows, level_of_last])
        result: Costs = (
            (own + lower + upper) / self.total - np.log(self.total) + np.log(np.maximum(inside, 1.0))
        )
        return result

    def _tail(self, tail: Costs, place: Ends, spread: Costs) -> Costs:
        """What the sum of p log(p / q) grows by when `tail` is added to the bins at `place`."""
        held = self.counts[place]
        grown = _x_log_x(held + tail) - _x_log_x(held) - tail * spread
        return np.where(tail > 0, np.where(held > 0, grown, np.inf), 0.0)


def _x_log_x(x: Costs) -> Costs:
    result: Costs = x * np.log(np.where(x > 0, x, 1.0))
    return result
