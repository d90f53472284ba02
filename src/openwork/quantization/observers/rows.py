"""A sample of the rows seen, for `search`, which looks at the layer's output."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from openwork.quantization.observers.base import Observer

MOST_ROWS = 1024

# Of very wide rows fewer are kept: 8 MiB of them at most, but never fewer than 16.
MOST_ELEMENTS, LEAST_ROWS = 1 << 21, 16

# Elements hashed at once, to bound what lies in memory beside the rows.
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
        self.channel_low, self.channel_high = torch.zeros(0), torch.zeros(0)
        # Written in place: a new sample for every batch would leave the heap in pieces.
        self._held, self._count = torch.zeros(0, 0), 0
        self._hashes = torch.zeros(0, dtype=torch.int64)

    @property
    def rows(self) -> Tensor:
        """The sample, f32 [R, K], in the order of the hashes."""
        return self._held[self._hashes[: self._count].argsort(stable=True)]

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "most": self.most}

    def _take(self, x: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> None:
        vectors = x.reshape(-1, x.shape[-1] if x.dim() else 1).cpu()
        if self._count and vectors.shape[1] != self._held.shape[1]:
            raise ValueError(
                f"The input of {self.name} has rows of {vectors.shape[1]}, but of {self._held.shape[1]} "
                "before."
            )
        self._widen(*torch.aminmax(vectors, dim=0))
        step = max(1, CHUNK // vectors.shape[1])
        for start in range(0, len(vectors), step):
            part = vectors[start : start + step]
            self._keep(part, hashes_of(part))

    def _widen(self, low: Tensor, high: Tensor) -> None:
        first = not self._count
        self.channel_low = low if first else torch.minimum(low, self.channel_low)
        self.channel_high = high if first else torch.maximum(high, self.channel_high)

    def _keep(self, rows: Tensor, hashes: Tensor) -> None:
        """Take in the rows whose hashes are among the smallest, in the places of those that no longer are."""
        most = min(self.most, max(LEAST_ROWS, MOST_ELEMENTS // rows.shape[1]))
        if self._count == most:
            better = hashes < self._hashes.max()
            rows, hashes = rows[better], hashes[better]
        count = min(self._count + len(rows), most)
        self._make_room(count, most, rows.shape[1])
        before = self._hashes[: self._count]
        kept = torch.zeros(self._count + len(rows), dtype=torch.bool)
        kept[torch.cat([before, hashes]).argsort(stable=True)[:count]] = True
        coming = kept[self._count :]
        free = torch.cat([torch.nonzero(~kept[: self._count]).flatten(), torch.arange(self._count, count)])
        self._held[free], self._hashes[free] = rows[coming], hashes[coming]
        self._count = count

    def _make_room(self, count: int, most: int, width: int) -> None:
        if count <= len(self._held):
            return
        size = min(max(2 * len(self._held), count), most)
        held, hashes = torch.zeros(size, width), torch.zeros(size, dtype=torch.int64)
        if self._count:
            held[: self._count] = self._held[: self._count]
            hashes[: self._count] = self._hashes[: self._count]
        self._held, self._hashes = held, hashes

    def _ranges(self) -> tuple[Tensor, Tensor]:
        return self._least, self._most

    def _merge(self, other: RowObserver) -> None:
        self._widen(other.channel_low, other.channel_high)
        self._keep(other.rows, other._hashes[: other._count].sort().values)

    def _state(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "hashes": self._hashes[: self._count].sort().values,
            "channel_low": self.channel_low.clone(),
            "channel_high": self.channel_high.clone(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._held, self._hashes = state["rows"].clone(), state["hashes"].clone()
        self._count = len(self._held)
        self.channel_low, self.channel_high = state["channel_low"].clone(), state["channel_high"].clone()


def hashes_of(rows: Tensor) -> Tensor:
    """A hash of each row's bits: i64 [R]. Sums and products wrap; xor and shift mix the upper bits in."""
    mixed = (rows.contiguous().view(torch.int32) * _factors(rows.shape[1])).sum(dim=1)
    for shift, factor in ((32, -7046029254386353131), (29, -4658895280553007687), (32, 1)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return mixed


@lru_cache(maxsize=64)
def _factors(width: int) -> Tensor:
    """Odd numbers, the same in every process: i64 [width]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2**62, (width,), generator=generator) * 2 + 1
