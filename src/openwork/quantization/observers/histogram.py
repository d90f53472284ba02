"""Counts of values in bins on one fixed grid: bounded memory,
and the same counts in whatever order they come.

Bins are powers of two wide and start at zero, so a coarser grid's bins are unions of a finer one's. How wide
they are follows from the largest magnitude seen alone. The counts are thus a function of the multiset of the
values: not of their order, their batches or the worker that saw them, and two histograms add up exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# 2^14 bins from 0 to a power of two: the largest value seen lies in bin 8192 or above, so a bin is at most
# 1/8192 of it, and 128 KiB hold one sign.
BINS_LOG2 = 14
# Per channel a tensor's memory is shared: with C channels 2^17 / C bins each, at least 512, at most 4096.
CHANNEL_TOTAL_LOG2 = 17
CHANNEL_LEAST_LOG2, CHANNEL_MOST_LOG2 = 9, 12

# Values below 2^-112 count in bin 0; no scale of affine.py could represent them anyway, and 2^(14 + 112) is a
# number of binary32.
LEAST_EXPONENT = -112

# Elements binned at once: what is written between two passes stays in the cache, and temporaries stay small.
CHUNK = 1 << 18


class Histogram:
    """Counts of binary32 values by sign and magnitude, per tensor or per channel.

    Bin i of `positive` holds the values with i <= |x| / width < i + 1, that of `negative` those below zero;
    zeros are counted apart. width = 2^(exponent - bins_log2), the largest magnitude being below 2^exponent.
    """

    def __init__(self, channels: int | None = None, bins_log2: int | None = None) -> None:
        """channels: None for one histogram of all values, else one each. bins_log2:
        log2 of the bins per sign."""
        self.channels = channels
        self.rows = 1 if channels is None else channels
        self.bins_log2 = _bins_log2(channels) if bins_log2 is None else bins_log2
        self.bins = 1 << self.bins_log2
        self.exponent = torch.full((self.rows,), LEAST_EXPONENT, dtype=torch.int64)
        self.zeros = torch.zeros(self.rows, dtype=torch.int64)
        self.positive = torch.zeros(self.rows, self.bins, dtype=torch.int64)
        # Made when the first negative value comes: what follows a relu has none.
        self.negative: Tensor | None = None

    @property
    def width(self) -> Tensor:
        """The width of a bin in each channel: f64 [rows]."""
        return torch.ldexp(torch.ones(self.rows, dtype=torch.float64), self.exponent - self.bins_log2)

    def add(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Count the values of `x`.

        x: f32 [rows, n], finite. low, high: f32 [rows], the least and the largest value of each row of `x`.
        """
        self._raise_to(_exponent_above(torch.maximum(-low, high).cpu()))
        signed = bool((low < 0).any())
        factor = torch.ldexp(torch.ones(self.rows), self.bins_log2 - self.exponent)[:, None].to(x.device)
        step = max(1, max(CHUNK, 4 * self.rows * self.bins) // self.rows)
        for start in range(0, x.shape[1], step):
            self._count(x[:, start : start + step], factor, signed)

    def magnitudes(self) -> Tensor:
        """The counts of |x| without its zeros: i64 [rows, bins]."""
        return self.positive if self.negative is None else self.positive + self.negative

    def both(self) -> tuple[Tensor, int]:
        """The counts of x without its zeros, i64 [rows, N], from the least bin up,
        and how many lie below 0."""
        if self.negative is None:
            return self.positive, 0
        return torch.cat([self.negative.flip(1), self.positive], dim=1), self.bins

    def merge(self, other: Histogram) -> None:
        """Add the counts of `other`: exactly the histogram of the values of both.

        Raises ValueError if the two have other channels or bins.
        """
        if (self.channels, self.bins_log2) != (other.channels, other.bins_log2):
            raise ValueError(
                f"A histogram of {self.channels} channels and 2^{self.bins_log2} bins cannot take in one of "
                f"{other.channels} channels and 2^{other.bins_log2} bins."
            )
        self._raise_to(other.exponent)
        rise = self.exponent - other.exponent
        self.zeros += other.zeros
        self.positive += _coarsened(other.positive, rise)
        if other.negative is not None:
            self._negative().add_(_coarsened(other.negative, rise))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores: tensors and numbers."""
        return {
            "exponent": self.exponent.clone(),
            "zeros": self.zeros.clone(),
            "positive": self.positive.clone(),
            "negative": None if self.negative is None else self.negative.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; raises ValueError if it is of other channels or bins."""
        shape = tuple(state["positive"].shape)
        if shape != tuple(self.positive.shape):
            raise ValueError(
                f"The saved histogram has {shape[0]} channels of {shape[1]} bins, but {self.rows} channels "
                f"of {self.bins} bins are expected; it was saved by another kind of observer."
            )
        self.exponent, self.zeros = state["exponent"].clone(), state["zeros"].clone()
        self.positive = state["positive"].clone()
        self.negative = None if state["negative"] is None else state["negative"].clone()

    def _count(self, x: Tensor, factor: Tensor, signed: bool) -> None:
        # A power of two times x is exact, or below the normal numbers and in bin 0 as it should be; so a
        # value's bin in a coarser grid is the one that holds its bin in this one.
        index = ((x.abs() if signed else x) * factor).int()
        span = 2 * self.bins if signed else self.bins
        if signed:
            # The sign bit, spread over the word, is -1; that of -0 is taken away by the addition.
            index.sub_((x + 0.0).view(torch.int32) >> 31, alpha=self.bins)
        if self.rows > 1:
            index += torch.arange(0, self.rows * span, span, dtype=torch.int32, device=x.device)[:, None]
        counts = torch.bincount(index.reshape(-1), minlength=self.rows * span).cpu().view(self.rows, span)
        zeros = x.shape[1] - _count_nonzero(x).cpu()
        self.positive += counts[:, : self.bins]
        self.positive[:, 0] -= zeros
        self.zeros += zeros
        if signed:
            self._negative().add_(counts[:, self.bins :])

    def _negative(self) -> Tensor:
        if self.negative is None:
            self.negative = torch.zeros_like(self.positive)
        return self.negative

    def _raise_to(self, exponent: Tensor) -> None:
        """Widen the bins of the channels whose values have grown: 2^n neighbours become one."""
        rise = (exponent - self.exponent).clamp_(min=0)
        if not rise.any():
            return
        self.exponent = self.exponent + rise
        self.positive = _coarsened(self.positive, rise)
        if self.negative is not None:
            self.negative = _coarsened(self.negative, rise)


def _count_nonzero(x: Tensor) -> Tensor:
    """Of each row, i64 [rows]; of one row torch is faster without `dim`."""
    return torch.count_nonzero(x).reshape(1) if len(x) == 1 else torch.count_nonzero(x, dim=1)


def _bins_log2(channels: int | None) -> int:
    if channels is None:
        return BINS_LOG2
    share = CHANNEL_TOTAL_LOG2 - max(channels - 1, 0).bit_length()
    return min(max(share, CHANNEL_LEAST_LOG2), CHANNEL_MOST_LOG2)


def _exponent_above(largest: Tensor) -> Tensor:
    """The least e with largest < 2^e, not below `LEAST_EXPONENT`: i64 of the shape of `largest`."""
    return torch.frexp(largest.double())[1].long().clamp_(min=LEAST_EXPONENT)


def _coarsened(counts: Tensor, rise: Tensor) -> Tensor:
    """`counts` [rows, bins] with 2^rise[row] neighbours summed into one, from bin 0."""
    result = counts.clone()
    bins = counts.shape[1]
    for step in set(rise.tolist()):
        if step == 0:
            continue
        chosen = rise == step
        group = 1 << min(step, bins.bit_length() - 1)
        result[chosen] = 0
        result[chosen, : bins // group] = counts[chosen].view(-1, bins // group, group).sum(dim=2)
    return result
