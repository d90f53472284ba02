"""The ranges that the calls of one module have, where all of them share a quantizer."""

from __future__ import annotations

import torch
from torch import Tensor

APART = 16.0
"""How much larger one call's range may be than another's: beyond that the smaller one is left less than four
of eight bits.
"""


class CallRanges:
    """The largest magnitude that each call saw, over all batches."""

    def __init__(self) -> None:
        self._largest: list[Tensor] = []
        self._call = 0

    def begin(self) -> None:
        """A forward of the model begins."""
        self._call = 0

    @torch.no_grad()
    def take(self, x: Tensor) -> None:
        """The next call's tensor."""
        if not x.numel():
            return
        largest = x.detach().abs().amax().double().cpu()
        if self._call == len(self._largest):
            self._largest.append(largest)
        else:
            self._largest[self._call] = torch.maximum(self._largest[self._call], largest)
        self._call += 1

    def apart(self) -> str | None:
        """How two calls differ, as the end of a sentence, where one of them is left too few integers."""
        ranges = [float(value) for value in self._largest]
        if not ranges or min(ranges) <= 0 or max(ranges) <= APART * min(ranges):
            return None
        low, high = ranges.index(min(ranges)), ranges.index(max(ranges))
        return (
            f"call {low} reaches {min(ranges):.3g} and call {high} {max(ranges):.3g}, so that call {low} has "
            "few integers; prepare with calls='apart', which gives each call a quantizer of its own, or "
            "leave the module in float"
        )
