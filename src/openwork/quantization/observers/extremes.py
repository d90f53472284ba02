"""Observers that look at the smallest and the largest value of every batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from openwork.quantization.observers.base import Observer

# The share of a new batch in the moving average, as torch's MovingAverageMinMaxObserver has it.
MOVING_SHARE = 0.01

# A batch so old that its weight is below half a unit of binary32 no longer counts.
FORGOTTEN = 2.0**-24


class MaxObserver(Observer):
    """The smallest and the largest value seen."""

    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        pass

    def _ranges(self) -> tuple[Tensor, Tensor]:
        return self._least, self._most

    def _merge(self, other: MaxObserver) -> None:
        pass

    def _state(self) -> dict[str, Any]:
        return {}

    def _load(self, state: dict[str, Any]) -> None:
        pass


class MovingObserver(Observer):
    """The exponential moving average of the batches' smallest and largest values.

    average = first batch's; then average += share * (batch's - average). Only the last log(2^-24) / log(1 -
    share) batches count, the first of them as the first: what is older weighs less than binary32 can show.

    The ranges of those batches are kept, so that workers merge exactly: the i-th batches of all workers count
    as one batch, as they do for one worker that is given their union.
    """

    def __init__(self, name: str, axis: int | None = None, share: float = MOVING_SHARE) -> None:
        super().__init__(name, axis)
        if not 0.0 < share < 1.0:
            raise ValueError(f"The share of a new batch lies between 0 and 1, but it is {share} ({name}).")
        self.share = share
        self.most = math.ceil(math.log(FORGOTTEN) / math.log(1 - share))
        # Row i % most holds the least and the largest values of batch i.
        self._history = torch.zeros(0, 2, 1)
        self._steps = 0

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "share": self.share}

    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        if self._steps >= len(self._history) and len(self._history) < self.most:
            grown = torch.zeros(min(max(16, 2 * len(self._history)), self.most), 2, len(low))
            grown[: len(self._history)] = self._history
            self._history = grown
        self._history[self._steps % self.most] = torch.stack([low, high])
        self._steps += 1

    def _ranges(self) -> tuple[Tensor, Tensor]:
        history = self._ordered().double()
        weights = self.share * (1 - self.share) ** torch.arange(len(history) - 1, -1, -1, dtype=torch.float64)
        weights[0] /= self.share
        low, high = torch.einsum("n,nec->ec", weights, history)
        return low, high

    def _ordered(self) -> Tensor:
        """The ranges of the batches that count, oldest first: f32 [n, 2, rows]."""
        count = min(self._steps, self.most)
        return (
            torch.roll(self._history, -(self._steps % self.most), 0)
            if count == self.most
            else self._history[:count]
        )

    def _merge(self, other: MovingObserver) -> None:
        steps = max(self._steps, other._steps)
        first = max(0, steps - self.most)
        merged = torch.tensor([math.inf, -math.inf])[:, None].repeat(steps - first, 1, len(self._least))
        for one in (self, other):
            kept = one._ordered()
            kept = kept[max(0, first - (one._steps - len(kept))) :]
            part = merged[one._steps - first - len(kept) : max(0, one._steps - first)]
            part[:, 0] = torch.minimum(part[:, 0], kept[:, 0])
            part[:, 1] = torch.maximum(part[:, 1], kept[:, 1])
        self._restore(merged, steps)

    def _restore(self, ordered: Tensor, steps: int) -> None:
        full = len(ordered) == self.most
        self._history = torch.roll(ordered, steps % self.most, 0) if full else ordered.clone()
        self._steps = steps

    def _state(self) -> dict[str, Any]:
        return {"history": self._ordered().clone(), "steps": self._steps}

    def _load(self, state: dict[str, Any]) -> None:
        self._restore(state["history"], state["steps"])

    def _begin(self, channels: int | None) -> None:
        self._history, self._steps = torch.zeros(0, 2, channels or 1), 0
