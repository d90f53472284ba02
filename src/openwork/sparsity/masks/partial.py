"""Masks on the way to a pattern: with only a part of its zeros."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import torch
from torch import Tensor

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.mask import best_mask, kept_in_groups
from openwork.sparsity.masks.selection import at_rank, least, ranks

# A fraction such as 1 / 3 is a little less than what it stands for; so many blocks as would notice this slack
# no layer has.
_SLACK = 1e-9


def mask_at(scores: Tensor, pattern: Pattern, zeros: float) -> Tensor:
    """The mask on the way to `pattern` with the fraction `zeros` of the weights zero, bool, as `scores`.

    N:M: every group drops floor(zeros * M) weights, and of all groups of the layer those whose next weight
    scores least drop one more, until the fraction is reached: 2:4 at a quarter is 3:4. N:Mt: so along the
    inputs, among the weights that the final mask drops; along the outputs no more are dropped than at the
    end. Blocks: that fraction of the blocks. For equal scores a mask with more zeros drops what one with
    fewer drops. scores: f32 [stack, out, in], finite. zeros: from 0 to pattern.zeros, where this is
    `best_mask`; blocks may go beyond it, to 1 (a global budget gives some layers more).
    Raises ValueError for a fraction outside of that.
    """
    _check(pattern, zeros)
    if abs(zeros - pattern.zeros) <= _SLACK:
        return best_mask(scores, pattern)
    if zeros <= _SLACK or zeros >= 1.0 - _SLACK:
        return torch.full_like(scores, zeros < 0.5, dtype=torch.bool)
    if isinstance(pattern, BlockPattern):
        return best_mask(scores, replace(pattern, fraction=zeros + _SLACK))
    if isinstance(pattern, GroupPattern):
        return kept_in_groups(_lifted(scores, pattern), pattern, lambda groups: _kept(groups, zeros))
    raise TypeError(f"{type(pattern).__name__} is not a pattern that masks can be made for.")


def _check(pattern: Pattern, zeros: float) -> None:
    most = 1.0 if isinstance(pattern, BlockPattern) else pattern.zeros
    if not -_SLACK <= zeros <= most + _SLACK:
        raise ValueError(
            f"A mask on the way to {pattern} has a fraction of zeros between 0 and {most:g}, but {zeros:g} "
            "was asked for."
        )


def _lifted(scores: Tensor, pattern: GroupPattern) -> Tensor:
    """For a transposable pattern the scores with what its final mask keeps above all the rest."""
    if not pattern.transposable:
        return scores
    return scores.masked_fill(best_mask(scores, pattern), torch.inf)


def _kept(groups: Tensor, zeros: float) -> Tensor:
    """The mask of groups [count, M]: each drops floor(zeros * M), and the weakest of them one more."""
    count, width = groups.shape
    drops = floor(zeros * width + _SLACK)
    extra = floor((zeros * width - drops) * count + count * _SLACK + _SLACK)
    place = ranks(groups)
    keep = width - drops
    if extra <= 0:
        return place < keep
    weakest = least(at_rank(groups, place, keep - 1), extra)
    return place < (keep - weakest.to(place.dtype))[:, None]
