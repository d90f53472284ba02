"""Masks: boolean tensors of a weight's shape, true where the weight is kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern

# Up to this group width, ranking by pairwise comparison of whole columns beats a sort of every group.
_COMPARED_GROUP = 8


def magnitude_mask(weight: Tensor, pattern: Pattern) -> Tensor:
    """The mask of `pattern` that keeps the most energy, sum of w^2, of `weight`.

    weight: floating point [out, in]. Returns bool [out, in]; in every group exactly N positions are kept, on
    a tie the first ones. Raises ValueError for another shape, an empty weight, NaN or infinity.
    """
    check_weight(weight)
    return best_mask(weight.detach().float().square(), pattern)


def best_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """The mask of `pattern` that keeps the largest sum of `scores`, f32 [out, in], all >= 0."""
    if isinstance(pattern, GroupPattern):
        return _best_groups(scores, pattern)
    if isinstance(pattern, BlockPattern):
        return _best_blocks(scores, pattern)
    raise TypeError(f"{type(pattern).__name__} is not a pattern that masks can be made for.")


def check_weight(weight: Tensor, name: str = "A weight") -> None:
    """Raise ValueError unless `weight` is a non-empty, finite, floating point matrix [out, in]."""
    if weight.ndim != 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise ValueError(
            f"{name} must be a non-empty floating point matrix [out, in], but it is {weight.dtype} of shape "
            f"{list(weight.shape)}."
        )
    # The sum is a cheap first look: it is finite unless an element is not (or the sum itself overflows).
    if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
        row, column = (~torch.isfinite(weight)).nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {weight[row, column].item()} at row {row}, column {column}; weights must be "
            "finite before they are pruned."
        )


def _best_groups(scores: Tensor, pattern: GroupPattern) -> Tensor:
    rows, columns = scores.shape
    shared = pattern.shared
    if shared > 1:
        scores = functional.pad(scores, (0, 0, 0, -rows % shared)).reshape(-1, shared, columns).sum(dim=1)
    scores = functional.pad(scores, (0, -columns % pattern.group), value=-1.0)
    kept = _keep_best(scores.reshape(len(scores), -1, pattern.group), pattern.kept).flatten(1)[:, :columns]
    return kept.repeat_interleave(shared, dim=0)[:rows] if shared > 1 else kept


def _keep_best(scores: Tensor, keep: int) -> Tensor:
    """True at the `keep` largest of the last dimension, the first of equals."""
    width = scores.shape[-1]
    if width > _COMPARED_GROUP:
        best = scores.argsort(dim=-1, descending=True, stable=True)[..., :keep]
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
    columns = [column.contiguous() for column in scores.unbind(-1)]
    better = [torch.zeros(columns[0].shape, dtype=torch.int8, device=scores.device) for _ in columns]
    for i in range(width):
        for j in range(i + 1, width):
            later_wins = columns[j] > columns[i]
            better[i] += later_wins
            better[j] += ~later_wins
    return torch.stack([count < keep for count in better], dim=-1)


def _best_blocks(scores: Tensor, pattern: BlockPattern) -> Tensor:
    rows, columns = scores.shape
    padded = functional.pad(scores, (0, -columns % pattern.columns, 0, -rows % pattern.rows))
    high, wide = padded.shape[0] // pattern.rows, padded.shape[1] // pattern.columns
    blocks = padded.reshape(high, pattern.rows, wide, pattern.columns).sum(dim=(1, 3))
    kept = torch.ones(blocks.numel(), dtype=torch.bool, device=scores.device)
    kept[blocks.flatten().argsort(stable=True)[: pattern.zero_blocks(blocks.numel())]] = False
    kept = kept.view(blocks.shape).repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.columns, 1)
    return kept[:rows, :columns]
