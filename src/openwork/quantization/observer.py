"""Observers: they watch one tensor over many batches and say which range of values to represent."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

ObserverKind = Literal["output", "max", "percentile"]

DEFAULT_PERCENTILE = 99.99
FIRST_BINS = 2048
MOST_BINS = 65536
MOST_ROWS = 1024


class Observer(ABC):
    """Watches one tensor; `name` is the layer it feeds, for messages. `values` counts the elements seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = 0
        self.low, self.high = math.inf, -math.inf

    def observe(self, x: Tensor) -> None:
        """Take in a tensor of any shape; raises ValueError if it holds NaN or infinity, naming the layer."""
        if x.numel() == 0:
            return
        x = x.detach().float()
        low, high = (float(edge) for edge in torch.aminmax(x))
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int((~torch.isfinite(x)).sum())
            raise ValueError(
                f"The input of {self.name} holds {bad} values that are NaN or infinite, of {x.numel()}; "
                "an earlier layer or the calibration data made them, and no scale can be chosen from them."
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.values += x.numel()
        self._take(x)

    def range(self) -> tuple[float, float]:
        """The range [low, high] to represent; raises ValueError if nothing was seen, naming the layer."""
        if self.values == 0:
            raise ValueError(
                f"No data reached the input of {self.name}, so no range can be chosen for it; "
                "calibrate with batches that run this layer, or exclude it."
            )
        return self._range()

    @abstractmethod
    def _take(self, x: Tensor) -> None: ...

    @abstractmethod
    def _range(self) -> tuple[float, float]: ...


class MaxObserver(Observer):
    """The smallest and the largest value seen."""

    def _take(self, x: Tensor) -> None:
        pass

    def _range(self) -> tuple[float, float]:
        return self.low, self.high


class PercentileObserver(Observer):
    """The range that holds `percentile` percent of the values seen, from a histogram of bounded size.

    symmetric: a percentile of |x|, giving [-a, a]; otherwise of x, leaving out half the rest at either end.
    """

    def __init__(self, name: str, percentile: float = DEFAULT_PERCENTILE, symmetric: bool = True) -> None:
        super().__init__(name)
        if not 50.0 <= percentile <= 100.0:
            raise ValueError(f"A percentile lies between 50 and 100, but it is {percentile} ({name}).")
        self.percentile, self.symmetric = percentile, symmetric
        self.histogram = Histogram()

    def _take(self, x: Tensor) -> None:
        self.histogram.add(x.abs() if self.symmetric else x)

    def _range(self) -> tuple[float, float]:
        kept = self.percentile / 100
        if self.symmetric:
            edge = min(self.histogram.quantile(kept), max(-self.low, self.high))
            return -edge, edge
        low, high = self.histogram.quantile((1 - kept) / 2), self.histogram.quantile((1 + kept) / 2)
        return max(low, self.low), min(high, self.high)


class RowObserver(MaxObserver):
    """A sample of the rows seen, at most `most` of them, and the range of each channel, for `search`."""

    def __init__(self, name: str, most: int = MOST_ROWS) -> None:
        super().__init__(name)
        self.most, self.share = most, 1.0
        self.rows = torch.zeros(0)
        self.channel_low, self.channel_high = torch.zeros(0), torch.zeros(0)
        # Its own generator: drawing must not disturb the caller's random numbers, and repeats from run to
        # run.
        self._generator = torch.Generator().manual_seed(0)

    def _take(self, x: Tensor) -> None:
        rows = x.reshape(-1, x.shape[-1]).cpu()
        low, high = torch.aminmax(rows, dim=0)
        first = not len(self.rows)
        self.channel_low = low if first else torch.minimum(low, self.channel_low)
        self.channel_high = high if first else torch.maximum(high, self.channel_high)
        taken = rows if first else torch.cat([self.rows, self._thin(rows, self.share)])
        if len(taken) > self.most:
            self.share *= self.most / len(taken)
            taken = self._thin(taken, self.most / len(taken))
        self.rows = taken.clone()

    def _thin(self, rows: Tensor, share: float) -> Tensor:
        count = max(1, round(len(rows) * share))
        return rows[torch.randperm(len(rows), generator=self._generator)[:count]]


class Histogram:
    """Counts of values in bins of one width; bin i holds [(first + i) * width, (first + i + 1) * width).

    The width is set by the first values that are not all zero. A value outside widens the range at that
    width; where this would take more than `most` bins, the width doubles and neighbours merge, so memory
    stays bounded whatever comes.
    """

    def __init__(self, bins: int = FIRST_BINS, most: int = MOST_BINS) -> None:
        self.bins, self.most = bins, most
        self.width = 0.0
        self.first = 0
        self.counts = torch.zeros(0, dtype=torch.int64)
        self._zeros = 0

    def add(self, x: Tensor) -> None:
        """Count the values of `x`, any shape, finite."""
        x = x.detach().reshape(-1).double()
        low, high = (float(edge) for edge in torch.aminmax(x))
        if low == high == 0.0:
            self._zeros += x.numel()
            return
        if not self.width:
            self.width = max(-low, high) / self.bins
        self._cover(low, high)
        index = (x / self.width).floor_().long().sub_(self.first)
        self.counts += torch.bincount(index, minlength=len(self.counts)).cpu()

    def quantile(self, fraction: float) -> float:
        """The value below which `fraction` of the values lie, linear within its bin."""
        counts, first = self._with_zeros()
        cumulative = counts.cumsum(0)
        target = fraction * int(cumulative[-1])
        place = min(int(torch.searchsorted(cumulative, target)), len(counts) - 1)
        before = int(cumulative[place]) - int(counts[place])
        inside = (target - before) / max(int(counts[place]), 1)
        return (first + place + inside) * self.width

    def _with_zeros(self) -> tuple[Tensor, int]:
        if not self.width:
            return torch.tensor([max(self._zeros, 1)]), 0
        self._cover(0.0, 0.0)
        counts = self.counts.clone()
        counts[-self.first] += self._zeros
        return counts, self.first

    def _cover(self, low: float, high: float) -> None:
        while True:
            first, end = math.floor(low / self.width), math.floor(high / self.width) + 1
            if len(self.counts):
                first, end = min(first, self.first), max(end, self.first + len(self.counts))
            if end - first <= self.most:
                break
            self._double()
        grown = torch.zeros(end - first, dtype=torch.int64)
        grown[self.first - first : self.first - first + len(self.counts)] = self.counts
        self.counts, self.first = grown, first

    def _double(self) -> None:
        """Merge bins 2i and 2i + 1, counted from zero so that the edges stay multiples of the width."""
        self.width *= 2
        if not len(self.counts):
            return
        padded = torch.nn.functional.pad(self.counts, (self.first % 2, (self.first + len(self.counts)) % 2))
        self.first //= 2
        self.counts = padded.reshape(-1, 2).sum(dim=1)


def make_observer(kind: ObserverKind, name: str, percentile: float, symmetric: bool) -> Observer:
    """The observer that `kind` names; raises ValueError for another kind."""
    if kind == "output":
        return RowObserver(name)
    if kind == "max":
        return MaxObserver(name)
    if kind == "percentile":
        return PercentileObserver(name, percentile, symmetric)
    raise ValueError(f'An observer is "output", "max" or "percentile", but it is {kind!r}.')
