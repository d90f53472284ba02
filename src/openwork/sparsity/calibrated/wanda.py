"""Pruning by weights and activations: |w| times the norm of the input channel that it meets.

Source: Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models" (Wanda),
section 3.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.patterns.pattern import BlockPattern, Pattern
from openwork.sparsity.calibrated.oneshot import Calibration, Method, prune_model
from openwork.sparsity.calibrated.reconstruction import Reconstructed
from openwork.sparsity.masks.mask import best_mask, check_weight
from openwork.sparsity.masks.prunable import Prunable
from openwork.support.progress import Advance


def wanda_model(
    model: nn.Module, layers: Mapping[str, Prunable], calibration: Calibration, advance: Advance
) -> dict[str, Reconstructed]:
    """Prune `layers` of `model` in place, each to its own pattern by `wanda_mask`, and return each one's
    result, of its weight's shape.

    The weights that stay are not changed. The order of the layers, `advance` and what is raised are those of
    `reconstruct_model`. The error is estimated as if input channels were uncorrelated: the sum of the scores
    that were dropped, as a fraction of all.
    """

    def prune(layer: Prunable, norms: Tensor) -> Reconstructed:
        weight = layer.weight.detach().float()
        stack = layer.view.matrices(weight)
        scores = wanda_scores(stack, norms)
        kept = _chosen(scores, layer.pattern, len(norms))
        total = float(scores.sum())
        error = float(scores.masked_fill(kept, 0.0).sum()) / total if total > 0 else 0.0
        mask = layer.view.restore(kept)
        return Reconstructed(weight * mask, mask, error)

    return prune_model(model, layers, calibration, advance, Method(True, prune))


def wanda_scores(weight: Tensor, norms: Tensor) -> Tensor:
    """(|w| * ||x||)^2 for each weight: f32 of the weight's shape.

    The square of the paper's score: between single weights the order is the same, and summed over a block or
    over rows that share a mask it is the energy that the output loses, were the channels uncorrelated.
    weight: floating point [out, in] or [taps * groups, out, in], groups innermost. norms: the mean or the sum
    of x^2 over the calibration rows, f32 [C] or [groups, C] with C = taps * in, taps outermost. Raises
    ValueError for shapes that do not fit, NaN or infinity, norms that are all zero.
    """
    check_weight(weight)
    stack = weight if weight.ndim == 3 else weight[None]
    grouped = norms if norms.ndim == 2 else norms[None]
    count, _, columns = stack.shape
    if grouped.shape[0] == 0 or grouped.numel() != count * columns or count % len(grouped):
        raise ValueError(
            f"A weight of shape {list(weight.shape)} needs {count * columns} norms, [taps * in] for each "
            f"group of inputs, but they have the shape {list(norms.shape)}."
        )
    if not torch.isfinite(grouped).all():
        raise ValueError(
            "The norms of the inputs hold NaN or infinity; look for them in the calibration inputs."
        )
    if not grouped.max() > 0:
        raise ValueError("The norms are zero; the calibration inputs of this layer are all zero.")
    by_matrix = grouped.reshape(len(grouped), -1, columns).transpose(0, 1).reshape(count, 1, columns)
    return (stack.float().square() * by_matrix).reshape(weight.shape)


def wanda_mask(weight: Tensor, norms: Tensor, pattern: Pattern) -> Tensor:
    """The mask of `pattern` by `wanda_scores`: bool of the weight's shape.

    Weights are compared with others of their own output alone, as the paper does. An N:M group is that by
    itself. With blocks, the block rows of a layer each drop the same number of blocks, over all kernel taps,
    or one more: those do whose next block is worth least, until the layer has the pattern's fraction of
    zeros.
    weight, norms: as in `wanda_scores`.
    """
    scores = wanda_scores(weight, norms)
    stack = scores if scores.ndim == 3 else scores[None]
    return _chosen(stack, pattern, 1 if norms.ndim == 1 else len(norms)).view(weight.shape)


def _chosen(scores: Tensor, pattern: Pattern, groups: int) -> Tensor:
    if isinstance(pattern, BlockPattern):
        return _balanced_blocks(scores, pattern, groups)
    return best_mask(scores, pattern)


def _balanced_blocks(scores: Tensor, pattern: BlockPattern, groups: int) -> Tensor:
    """The mask that drops blocks row by row; scores [taps * groups, out, in]."""
    stack, rows, columns = scores.shape
    padded = functional.pad(scores, (0, -columns % pattern.columns, 0, -rows % pattern.rows))
    high, wide = padded.shape[1] // pattern.rows, padded.shape[2] // pattern.columns
    blocks = padded.reshape(stack, high, pattern.rows, wide, pattern.columns).sum(dim=(2, 4))
    by_row = blocks.reshape(-1, groups, high, wide).permute(1, 2, 0, 3).reshape(groups * high, -1)
    kept = _balanced(by_row, pattern.zero_blocks(blocks.numel()))
    kept = kept.reshape(groups, high, -1, wide).permute(2, 0, 1, 3).reshape(stack, high, wide)
    whole = kept.repeat_interleave(pattern.rows, 1).repeat_interleave(pattern.columns, 2)
    return whole[:, :rows, :columns].contiguous()


def _balanced(scores: Tensor, drop: int) -> Tensor:
    """False at `drop` of the scores [rows, n]: each row's smallest first, then each row's next, and so on."""
    order = scores.argsort(dim=1, stable=True)
    ranks = torch.empty_like(order).scatter_(
        1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    )
    by_score = scores.flatten().argsort(stable=True)
    by_rank = by_score[ranks.flatten()[by_score].argsort(stable=True)]
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    kept[by_rank[:drop]] = False
    return kept.view(scores.shape)
