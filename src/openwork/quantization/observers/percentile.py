"""The range that holds a given part of the values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openwork.quantization.observers.bins import Bins

DEFAULT_PERCENTILE = 99.99


@dataclass(frozen=True)
class Percentile:
    """The range that holds `percent` percent of the values: of magnitudes from zero on, otherwise leaving out
    half the rest at either end. Linear within a bin, so within a bin's width of the exact quantile."""

    percent: float

    def __call__(self, bins: Bins) -> tuple[float, float]:
        kept = self.percent / 100
        if bins.folded:
            return 0.0, min(quantile(bins, kept), bins.high)
        low, high = quantile(bins, (1 - kept) / 2), quantile(bins, (1 + kept) / 2)
        # A place within a bin may lie beyond what was seen, at either end of it.
        return min(max(low, bins.low), bins.high), max(min(high, bins.high), bins.low)


def quantile(bins: Bins, fraction: float) -> float:
    """The value below which `fraction` of the values lie, zeros included, linear within its bin."""
    # The zeros are a bin of their own, without width, before the first of the bins above zero.
    counts = np.insert(bins.counts, bins.below, bins.zeros)
    cumulative = np.cumsum(counts)
    target = fraction * float(cumulative[-1])
    place = min(int(np.searchsorted(cumulative, target)), len(counts) - 1)
    if place == bins.below:
        return 0.0
    inside = (target - float(cumulative[place] - counts[place])) / max(float(counts[place]), 1.0)
    edge = place - bins.below - (1 if place > bins.below else 0)
    return (edge + inside) * bins.width
