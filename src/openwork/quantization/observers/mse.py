"""The range with the least squared error of quantizing, each bin's values taken to lie at its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openwork.quantization.observers.bins import Bins, Costs, Ends, prefix, search_range

# Ranges tried between zero and the largest value, at most.
CANDIDATES = 4096

SYMMETRIC_STEPS = 127
STEPS = 255

# The narrowest range tried is this part of the widest.
NARROWEST = 1 / 64


@dataclass(frozen=True)
class MeanSquare:
    """The range with the least count-weighted squared error at the bins' centres.

    Against the values themselves the root of the mean squared error is off by half a bin's width at most: the
    error |Q(x) - x| changes by no more than x does.
    """

    def __call__(self, bins: Bins) -> tuple[float, float]:
        low, high = bins.ends
        widest = max(high, -low)
        step = max(1, -(-widest // CANDIDATES))
        error = SquaredError(bins, SYMMETRIC_STEPS if bins.folded else STEPS)
        best = search_range(bins, error, step, max(1, int(widest * NARROWEST)))
        return bins.range_of(*best)


class SquaredError:
    """The sum of squared errors of ranges of bins, each in O(steps) by sums over the bins made once."""

    def __init__(self, bins: Bins, steps: int) -> None:
        self.steps, self.below = steps, bins.below
        centres = np.arange(len(bins.counts)) - bins.below + 0.5
        self.count = prefix(bins.counts)
        self.sum = prefix(bins.counts * centres)
        self.square = float((bins.counts * centres**2).sum())

    def __call__(self, low: Ends, high: Ends) -> Costs:
        """sum count * (Q(centre) - centre)^2 for the ranges [low[i], high[i]], in squared widths: f64 [n]."""
        scale = (high - low) / self.steps
        # Of folded bins `low` is 0, and so is the zero point.
        zero_point = np.rint(-low / scale)
        q = np.arange(self.steps + 1) - zero_point[:, None]
        # Centre j + 1/2 belongs to q from (q - 1/2) * scale on; at a tie either neighbour is as far.
        edges = np.ceil((q[:, 1:] - 0.5) * scale[:, None] - 0.5).astype(np.int64) + self.below
        edges = np.clip(edges, 0, len(self.count) - 1)
        ends = np.full((len(edges), 1), len(self.count) - 1)
        edges = np.concatenate([np.zeros_like(ends), edges, ends], axis=1)
        count, total = np.diff(self.count[edges], axis=1), np.diff(self.sum[edges], axis=1)
        value = q * scale[:, None]
        result: Costs = np.maximum(self.square + ((value * count - 2 * total) * value).sum(axis=1), 0.0)
        return result
