"""Factors that bring the channels between two layers to like ranges, whatever the layers are.

Let x = f(W1 v + b1) with f(s x) = s f(x) for positive s, and y = W2 x. Then for positive s [C]

    y = (W2 diag(s)) f(diag(1/s) W1 v + diag(1/s) b1)
    s = sqrt(r1 / r2)    gives both sides the range sqrt(r1 r2)

with r1 the ranges of the channels on the first side and r2 those of the input channels of W2. Source: Nagel
et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["linear", "conv", "conv_transpose"]

SWEEPS = 1_000
CONVERGED = 1e-3
"""All pairs in turn until no factor moves by more than this part of itself."""

FLOOR = 1e-2
"""Of the median range: a channel that is all but silent counts as that wide, since what is nearly zero in the
weights (or in one example) may still come from a bias (or from other data) and would be blown up."""


@dataclass(frozen=True)
class Link:
    """Two layers by name and the tensor between them. repeat: how many neighbouring inputs of the second one
    channel of the first becomes (flattened pixels).
    """

    first: str
    second: str
    repeat: int = 1


def grouped(weight: Tensor, form: Form, groups: int = 1) -> Tensor:
    """The weight as [groups, out, in, taps], out and in counted within a group."""
    if form == "conv_transpose":
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).transpose(1, 2)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def ungrouped(weight: Tensor, form: Form, shape: Sequence[int]) -> Tensor:
    """The inverse of `grouped`, in the weight's own shape."""
    return (weight.transpose(1, 2) if form == "conv_transpose" else weight).reshape(*shape)


def output_ranges(weight: Tensor) -> Tensor:
    """The largest |w| of each output channel of a `grouped` weight, [groups * out]."""
    return weight.abs().amax((2, 3)).flatten()


def input_ranges(weight: Tensor, repeat: int = 1) -> Tensor:
    """The largest |w| of each input channel of a `grouped` weight, [groups * in / repeat]."""
    return weight.abs().amax((1, 3)).reshape(-1, repeat).amax(1)


def scale_outputs(weight: Tensor, by: Tensor) -> Tensor:
    """A `grouped` weight with its output channels multiplied by `by` [groups * out]."""
    return weight * by.reshape(weight.shape[0], -1, 1, 1)


def scale_inputs(weight: Tensor, by: Tensor, repeat: int = 1) -> Tensor:
    """A `grouped` weight with its input channels multiplied by `by` [groups * in / repeat]."""
    return weight * by.repeat_interleave(repeat).reshape(weight.shape[0], 1, -1, 1)


def balance(
    weights: Mapping[str, Tensor], links: Sequence[Link], between: Sequence[Tensor | None]
) -> list[Tensor]:
    """The factors s of each link, f64 [C], positive: divide the first layer's outputs and multiply the second
    layer's inputs by them.

    weights: of the layers by name, `grouped`, f64. between: for each link the ranges [C] of the tensor that
    the second layer reads, or None to take the first layer's weights for them, as the source does. A channel
    that is zero on either side keeps the factor 1. Layers in a row pull at each other, so all links are
    visited in turn until none moves.
    """
    held, seen = dict(weights), list(between)
    totals = [torch.ones_like(input_ranges(held[link.second], link.repeat)) for link in links]
    for _ in range(SWEEPS):
        moved = 0.0
        for i, link in enumerate(links):
            ranges = seen[i]
            first = output_ranges(held[link.first]) if ranges is None else ranges
            factors = _factors(first, input_ranges(held[link.second], link.repeat))
            held[link.first] = scale_outputs(held[link.first], 1 / factors)
            held[link.second] = scale_inputs(held[link.second], factors, link.repeat)
            seen[i] = None if ranges is None else ranges / factors
            totals[i] = totals[i] * factors
            moved = max(moved, float(factors.log().abs().amax()))
        if moved <= CONVERGED:
            break
    return totals


def _factors(first: Tensor, second: Tensor) -> Tensor:
    alive = (first > 0) & (second > 0)
    if not alive.any():
        return torch.ones_like(first)
    floored = [r.clamp(min=float(r[alive].median()) * FLOOR) for r in (first, second)]
    return torch.where(alive, (floored[0] / floored[1]).sqrt(), 1.0)
