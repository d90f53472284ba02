"""Masks: boolean tensors of a weight's shape, true where the weight is kept.

Everything here works on a matrix [out, in] or on a stack of them [stack, out, in] (`view.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.selection import least, ranks
from openwork.sparsity.masks.transposable import transposable_mask


def magnitude_mask(weight: Tensor, pattern: Pattern) -> Tensor:
    """The mask of `pattern` that keeps the most energy, sum of w^2, of `weight`.

    weight: floating point [out, in] or [stack, out, in]. Returns bool of the same shape; in every group
    exactly N positions are kept, on a tie the first ones. Raises ValueError for another shape, an empty
    weight, NaN or infinity.
    """
    check_weight(weight)
    if weight.ndim > 3:
        raise ValueError(
            f"A mask is made for a matrix [out, in] or a stack [stack, out, in], but the shape is "
            f"{list(weight.shape)}; `WeightView` gives the stack of any layer's weight."
        )
    return best_mask(weight.detach().float().square(), pattern)


def best_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """The mask of `pattern` that keeps the largest sum of `scores`,
    f32 [out, in] or [stack, out, in], finite.

    On a tie the first positions of a group are kept, and the last blocks of a layer.
    """
    stack = scores if scores.ndim == 3 else scores[None]
    return _best(stack, pattern).view(scores.shape)


def check_weight(weight: Tensor, name: str = "A weight") -> None:
    """Raise ValueError unless `weight` is a non-empty, finite,
    floating point tensor of 2 or more dimensions.
    """
    if weight.ndim < 2 or weight.numel() == 0 or not weight.is_floating_point():
        raise ValueError(
            f"{name} must be a non-empty floating point matrix [out, in], or a tensor of more dimensions, "
            f"but it is {weight.dtype} of shape {list(weight.shape)}."
        )
    # The sum is a cheap first look: it is finite unless an element is not (or the sum itself overflows).
    if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
        place = (~torch.isfinite(weight)).nonzero()[0].tolist()
        raise ValueError(
            f"{name} holds {weight[tuple(place)].item()} at {spot(place)}; weights must be finite "
            "before they are pruned."
        )


def spot(place: list[int]) -> str:
    """Words for an index into a weight."""
    if len(place) == 2:
        return f"row {place[0]}, column {place[1]}"
    return f"index {place}"


def _best(scores: Tensor, pattern: Pattern) -> Tensor:
    if isinstance(pattern, GroupPattern):
        return transposable_mask(scores, pattern) if pattern.transposable else _best_groups(scores, pattern)
    if isinstance(pattern, BlockPattern):
        return _best_blocks(scores, pattern)
    raise TypeError(f"{type(pattern).__name__} is not a pattern that masks can be made for.")


def _best_groups(scores: Tensor, pattern: GroupPattern) -> Tensor:
    return kept_in_groups(scores, pattern, lambda groups: ranks(groups) < pattern.kept)


def kept_in_groups(scores: Tensor, pattern: GroupPattern, keep: Callable[[Tensor], Tensor]) -> Tensor:
    """The mask, as `scores` [stack, out, in], of what `keep` says of groups.

    keep: of the scores of groups [count, M], summed over the channels that share a mask, the mask of the same
    shape. Positions beyond the weight's edge score least.
    """
    stack, rows, columns = scores.shape
    shared = pattern.shared
    if shared > 1:
        padded = functional.pad(scores, (0, 0, 0, -rows % shared))
        scores = padded.reshape(stack, -1, shared, columns).sum(dim=2)
    # Positions beyond the edge must lose against every real one, whatever the sign of its score.
    padded = functional.pad(scores, (0, -columns % pattern.group), value=-torch.inf)
    kept = keep(padded.reshape(-1, pattern.group)).view(padded.shape)[:, :, :columns]
    return kept.repeat_interleave(shared, dim=1)[:, :rows] if shared > 1 else kept.contiguous()


def _best_blocks(scores: Tensor, pattern: BlockPattern) -> Tensor:
    _, rows, columns = scores.shape
    padded = functional.pad(scores, (0, -columns % pattern.columns, 0, -rows % pattern.rows))
    high, wide = padded.shape[1] // pattern.rows, padded.shape[2] // pattern.columns
    blocks = padded.reshape(len(padded), high, pattern.rows, wide, pattern.columns).sum(dim=(2, 4))
    kept = ~least(blocks.flatten(), pattern.zero_blocks(blocks.numel()))
    kept = kept.view(blocks.shape).repeat_interleave(pattern.rows, 1).repeat_interleave(pattern.columns, 2)
    return kept[:, :rows, :columns].contiguous()
