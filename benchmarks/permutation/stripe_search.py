"""The exhaustive stripe search, the yardstick of `openwork.sparsity.permutation`, written from its
description.

Source: Pool & Yu 2021, "Channel Permutations for N:M Sparsity", section 4: all pairs of stripes of four
columns are searched exhaustively (35 ways to divide eight columns into two stripes), the pairs that gain
the most are applied first, and where none gains, two random columns change places and the search goes on.
2:4 only.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

_STRIPE = 4
_BATCH_ELEMENTS = 1 << 20
_LEAST_GAIN = 1e-7

_LEFTS = tuple((0, *rest) for rest in combinations(range(1, 8), 3))
_DIVISIONS = tuple((left, tuple(i for i in range(8) if i not in left)) for left in _LEFTS)


class StripeSearch:
    """The search's state: the order of the columns, and each pair of stripes' best division and its gain.

    magnitudes : f32 [rows, columns], columns a multiple of 4.
    """

    def __init__(self, magnitudes: Tensor, seed: int = 0) -> None:
        self.columns = magnitudes.t().contiguous()
        self.order = torch.arange(len(self.columns))
        self.stripes = len(self.columns) // _STRIPE
        self.gains = torch.zeros(self.stripes, self.stripes)
        self.choices = torch.zeros(self.stripes, self.stripes, dtype=torch.long)
        self.generator = torch.Generator().manual_seed(seed)
        self._look(range(self.stripes))

    def run(self, escapes: int = 0) -> Tensor:
        """The best order of columns found, i64 [columns]; `escapes` random swaps follow the first rest."""
        self._descend()
        best, best_kept = self.order.clone(), self.kept()
        for _ in range(escapes):
            self._disturb()
            self._descend()
            if (kept := self.kept()) > best_kept:
                best, best_kept = self.order.clone(), kept
        return best

    def kept(self) -> float:
        """The magnitude that 2:4 keeps in the present order."""
        groups = self.columns[self.order].view(self.stripes, _STRIPE, -1)
        return float(groups.topk(2, dim=1).values.double().sum())

    def _descend(self) -> None:
        while changed := self._apply_best():
            self._look(changed)

    def _apply_best(self) -> list[int]:
        """Apply the best division of each pair, largest gain first, each stripe once; the stripes changed."""
        floor = _LEAST_GAIN * float(self.columns.sum())
        pairs = (self.gains.triu(1) > floor).nonzero()
        ranked = pairs[self.gains[pairs[:, 0], pairs[:, 1]].argsort(descending=True)].tolist()
        used: set[int] = set()
        for a, b in ranked:
            if a not in used and b not in used:
                self._divide(a, b, int(self.choices[a, b]))
                used |= {a, b}
        return sorted(used)

    def _divide(self, a: int, b: int, choice: int) -> None:
        members = torch.cat([self._members(a), self._members(b)])
        left, right = _DIVISIONS[choice]
        self.order[a * _STRIPE : (a + 1) * _STRIPE] = members[list(left)]
        self.order[b * _STRIPE : (b + 1) * _STRIPE] = members[list(right)]

    def _members(self, stripe: int) -> Tensor:
        return self.order[stripe * _STRIPE : (stripe + 1) * _STRIPE].clone()

    def _disturb(self) -> None:
        stripes = torch.randperm(self.stripes, generator=self.generator)[:2]
        slots = stripes * _STRIPE + torch.randint(_STRIPE, (2,), generator=self.generator)
        self.order[slots] = self.order[slots.flip(0)]
        self._look(stripes.tolist())

    def _look(self, stripes: range | list[int]) -> None:
        """Search all pairs that one of `stripes` is in."""
        chosen = set(stripes)
        pairs = [
            (a, b)
            for a in range(self.stripes)
            for b in range(a + 1, self.stripes)
            if a in chosen or b in chosen
        ]
        batch = max(1, _BATCH_ELEMENTS // (8 * self.columns.shape[1]))
        for start in range(0, len(pairs), batch):
            some = torch.tensor(pairs[start : start + batch])
            members = self.order.view(-1, _STRIPE)[some].flatten(1)
            gain, choice = best_division(self.columns[members.t()])
            self.gains[some[:, 0], some[:, 1]] = gain
            self.choices[some[:, 0], some[:, 1]] = choice


def best_division(columns: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the 35 divisions of eight columns, f32 [8, pairs, rows]: its gain over the first, f32
    [pairs], and its number, i64 [pairs].
    """
    low_high = {}
    for i, j in combinations(range(8), 2):
        low_high[i, j] = (torch.minimum(columns[i], columns[j]), torch.maximum(columns[i], columns[j]))
    totals = torch.stack([_kept(low_high, left) + _kept(low_high, right) for left, right in _DIVISIONS])
    best, choice = totals.max(dim=0)
    return best - totals[0], choice


def _kept(low_high: dict[tuple[int, int], tuple[Tensor, Tensor]], stripe: tuple[int, ...]) -> Tensor:
    """The sum of the two largest of four: of two sorted pairs, the larger of both highs, or one whole
    pair.
    """
    (low, high), (other_low, other_high) = low_high[stripe[0], stripe[1]], low_high[stripe[2], stripe[3]]
    second = torch.maximum(torch.minimum(high, other_high), torch.where(high > other_high, low, other_low))
    return (torch.maximum(high, other_high) + second).sum(dim=1)
