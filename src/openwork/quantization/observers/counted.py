"""Observers that keep a histogram, and choose the range by a rule once all the data has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from openwork.quantization.observers.base import Observer
from openwork.quantization.observers.bins import Bins
from openwork.quantization.observers.entropy import Entropy
from openwork.quantization.observers.histogram import Histogram
from openwork.quantization.observers.mse import MeanSquare
from openwork.quantization.observers.percentile import DEFAULT_PERCENTILE, Percentile

# From one channel's bins to the range [low, high] to represent.
Rule = Callable[[Bins], tuple[float, float]]


class HistogramObserver(Observer):
    """The range that `rule` chooses from the histogram of the values seen.

    symmetric: of |x|, giving [-a, a]; otherwise of x. histogram: the counts, see `Histogram`.
    """

    def __init__(self, name: str, rule: Rule, symmetric: bool = True, axis: int | None = None) -> None:
        super().__init__(name, axis)
        self.rule, self.symmetric = rule, symmetric
        self.histogram = Histogram()

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "rule": repr(self.rule), "symmetric": self.symmetric}

    def bins(self, row: int = 0) -> Bins:
        """The histogram of one channel, or of all values:
        folded to magnitudes where the range is symmetric."""
        histogram, (low, high) = self.histogram, (float(edge[row]) for edge in (self._least, self._most))
        counts, below = (histogram.magnitudes(), 0) if self.symmetric else histogram.both()
        if self.symmetric:
            low, high = 0.0, max(-low, high)
        width, zeros = float(histogram.width[row]), int(histogram.zeros[row])
        return Bins(counts[row].numpy(), below, width, zeros, low, high, self.symmetric)

    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        self.histogram.add(rows, low, high)

    def _ranges(self) -> tuple[Tensor, Tensor]:
        chosen = [self.rule(self.bins(row)) for row in range(self.histogram.rows)]
        low, high = torch.tensor(chosen, dtype=torch.float64).unbind(1)
        return (-high, high) if self.symmetric else (low, high)

    def _merge(self, other: HistogramObserver) -> None:
        self.histogram.merge(other.histogram)

    def _state(self) -> dict[str, Any]:
        return self.histogram.state_dict()

    def _load(self, state: dict[str, Any]) -> None:
        self.histogram.load_state_dict(state)

    def _begin(self, channels: int | None) -> None:
        self.histogram = Histogram(channels)


class PercentileObserver(HistogramObserver):
    """The range that holds `percentile` percent of the values seen.

    symmetric: a percentile of |x|, giving [-a, a]; otherwise of x, leaving out half the rest at either end.
    """

    def __init__(
        self,
        name: str,
        percentile: float = DEFAULT_PERCENTILE,
        symmetric: bool = True,
        axis: int | None = None,
    ) -> None:
        if not 50.0 <= percentile <= 100.0:
            raise ValueError(f"A percentile lies between 50 and 100, but it is {percentile} ({name}).")
        super().__init__(name, Percentile(percentile), symmetric, axis)


class EntropyObserver(HistogramObserver):
    """The range with the least divergence between the values and the quantized ones, see `entropy`."""

    def __init__(self, name: str, symmetric: bool = True, axis: int | None = None) -> None:
        super().__init__(name, Entropy(), symmetric, axis)


class MseObserver(HistogramObserver):
    """The range with the least squared error between the values and the quantized ones, see `mse`."""

    def __init__(self, name: str, symmetric: bool = True, axis: int | None = None) -> None:
        super().__init__(name, MeanSquare(), symmetric, axis)
