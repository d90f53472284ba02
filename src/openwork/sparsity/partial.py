"""Masks on the way to a pattern: with only a part of its zeros."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import torch
from torch import Tensor
from torch.nn import functional

from openwork.sparsity.mask import best_mask
from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern

_SLACK = 1e-9


def mask_at(scores: Tensor, pattern: Pattern, zeros: float) -> Tensor:
    """The mask on the way to `pattern` with the fraction `zeros` of weights zero, bool of the scores' shape.

    Every group drops floor(zeros * M) weights, and of the groups those whose next weight is smallest in the whole
    layer drop one more: 2:4 at a quarter is 3:4. Blocks: that fraction of blocks. scores: f32 [stack, out, in],
    finite. zeros: from 0 to pattern.zeros, where this is `best_mask`.
    """
    if zeros >= pattern.zeros - _SLACK and isinstance(pattern, GroupPattern):
        return best_mask(scores, pattern)
    if zeros <= 0.0:
        return torch.ones_like(scores, dtype=torch.bool)
    if isinstance(pattern, BlockPattern):
        return best_mask(scores, replace(pattern, fraction=zeros))
    assert isinstance(pattern, GroupPattern)
    stack, rows, columns = scores.shape
    padded = functional.pad(scores, (0, 0, 0, -rows % pattern.shared))
    summed = padded.reshape(stack, -1, pattern.shared, columns).sum(dim=2)
    kept = _kept(summed, pattern.group, zeros)
    return kept.repeat_interleave(pattern.shared, dim=1)[:, :rows].contiguous()


def _kept(scores: Tensor, group: int, zeros: float) -> Tensor:
    columns = scores.shape[2]
    padded = functional.pad(scores, (0, -columns % group), value=-torch.inf)
    grouped = padded.reshape(-1, group)
    order = grouped.argsort(dim=1, stable=True, descending=True)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(group, device=order.device).expand_as(order)
    )
    base = floor(zeros * group + _SLACK)
    drops = torch.full((len(grouped), 1), base, device=order.device)
    extra = round((zeros * group - base) * len(grouped))
    nexts = grouped.gather(1, order[:, group - 1 - base].unsqueeze(1))[:, 0]
    drops[nexts.argsort(stable=True)[:extra]] += 1
    return (ranks < group - drops).reshape(padded.shape)[:, :, :columns]
