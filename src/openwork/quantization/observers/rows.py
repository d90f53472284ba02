"""A sample of the rows seen, for `search`, which looks at the layer's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openwork.quantization.observers.base import Observer

MOST_ROWS = 1024

# Of very wide rows fewer are kept: 8 MiB of them at most, but never fewer than 16.
MOST_ELEMENTS, LEAST_ROWS = 1 << 21, 16

# Elements given their priorities at once, to bound what lies in memory beside the rows.
CHUNK = 1 << 18


class RowObserver(Observer):
    """A sample of the rows seen, at most `most` of them, and the range of each channel, for `search`.

    Which rows are kept depends on a hash of their own bits: those with the smallest. Every row is as likely
    to be kept as another, whenever and on whichever worker it comes, so samples of parts of the data merge to
    the sample of all of it, and nobody's random numbers are drawn. rows: f32 [R, K], in the order of their
    hashes.
    """

    def __init__(self, name: str, most: int = MOST_ROWS) -> None:
        super().__init__(name)
        self.most = most
        self.rows = torch.zeros(0)
        self.channel_low, self.channel_high = torch.zeros(0), torch.zeros(0)
        self._priorities = torch.zeros(0, dtype=torch.int64)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "most": self.most}

    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        vectors = x.reshape(-1, x.shape[-1] if x.dim() else 1).cpu()
        if self.values and vectors.shape[1] != self.rows.shape[1]:
            raise ValueError(
                f"The input of {self.name} has rows of {vectors.shape[1]}, but of {self.rows.shape[1]} "
                f"before."
            )
        self._widen(*torch.aminmax(vectors, dim=0))
        step = max(1, CHUNK // vectors.shape[1])
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            self._keep(part, _hashes(part))

    def _widen(self, low: Tensor, high: Tensor) -> None:
        first = not self.values and not len(self.rows)
        self.channel_low = low if first else torch.minimum(low, self.channel_low)
        self.channel_high = high if first else torch.maximum(high, self.channel_high)

    def _keep(self, rows: Tensor, priorities: Tensor) -> None:
        most = min(self.most, max(LEAST_ROWS, MOST_ELEMENTS // rows.shape[1]))
        if len(self._priorities) == most:
            better = priorities < self._priorities[-1]
            rows, priorities = rows[better], priorities[better]
        if len(self._priorities):
            rows, priorities = torch.cat([self.rows, rows]), torch.cat([self._priorities, priorities])
        ordered, place = priorities.sort(stable=True)
        self._priorities, self.rows = ordered[:most].clone(), rows[place[:most]].clone()

    def _ranges(self) -> tuple[Tensor, Tensor]:
        return self._least, self._most

    def _merge(self, other: RowObserver) -> None:
        self._widen(other.channel_low, other.channel_high)
        self._keep(other.rows, other._priorities)

    def _state(self) -> dict[str, Any]:
        return {
            "rows": self.rows.clone(),
            "priorities": self._priorities.clone(),
            "channel_low": self.channel_low.clone(),
            "channel_high": self.channel_high.clone(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.rows, self._priorities = state["rows"].clone(), state["priorities"].clone()
        self.channel_low, self.channel_high = state["channel_low"].clone(), state["channel_high"].clone()


def _hashes(rows: Tensor) -> Tensor:
    """A hash of each row's bits: i64 [R]. Products and sums wrap around; xor and shift mix the upper bits
    in."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(2**62, (rows.shape[1],), generator=generator) * 2 + 1
    mixed = (rows.contiguous().view(torch.int32) * factors).sum(dim=1)
    for shift, factor in ((32, -7046029254386353131), (29, -4658895280553007687), (32, 1)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return mixed
