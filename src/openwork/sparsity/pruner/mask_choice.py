"""Choosing the masks of a pruner's weights at one moment of its schedule."""

from __future__ import annotations

import torch
from torch import Tensor

from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.sparsity.masks.masked_tensors import whole_mask
from openwork.sparsity.masks.partial import mask_at
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import full
from openwork.sparsity.pruner.budget import global_zeros
from openwork.sparsity.pruner.criterion import Criterion
from openwork.sparsity.pruner.state import PrunerState
from openwork.support.progress import Advance


@torch.no_grad()
def choose_masks(
    pruner: PrunerState, fraction: float, by_magnitude: bool = False, advance: Advance | None = None
) -> dict[str, Tensor]:
    """The masks, whole and of the weights' shapes, with `fraction` of each pattern's zeros.

    by_magnitude: whatever the pruner's criterion is. advance: told after each weight how many are done. A
    weight that was dropped stays dropped, unless the schedule's masks move. Raises ValueError if the
    criterion has not seen a gradient of some weight.
    """
    criterion = Criterion.parse("magnitude") if by_magnitude else pruner.criterion
    stacks: dict[str, Tensor] = {}
    wide = _zeros(pruner, criterion, fraction, stacks) if pruner.options.scope == "global" else {}
    masks = {}
    for done, (name, prunable) in enumerate(pruner.prunables.items(), 1):
        stack = stacks.pop(name) if name in stacks else scores_of(pruner, criterion, name)
        zeros = wide.get(name, fraction * prunable.pattern.zeros)
        masks[name] = prunable.view.restore(mask_at(stack, prunable.pattern, zeros))
        if advance:
            advance(done, name)
    return masks


def scores_of(pruner: PrunerState, criterion: Criterion, name: str) -> Tensor:
    """The scores of one weight as a stack [stack, out, in], what was dropped below everything else."""
    prunable = pruner.prunables[name]
    weight, state = pruner.dense.get(name, prunable.weight), pruner.scores.get(name, {})
    if not criterion.observed(state):
        raise ValueError(
            f'The criterion "{criterion}" has seen no gradient of {name} yet; run a backward pass and call '
            "observe(), or attach the pruner and train, before it chooses."
        )
    stack = prunable.view.matrices(full(criterion.scores(weight.detach(), state)).float())
    if pruner.schedule.moving:
        return stack
    return _sunk(stack, prunable.view.matrices(whole_mask(prunable)), prunable.pattern)


def error_of(prunable: Prunable, mask: Tensor) -> float:
    """The fraction of the weight's energy, sum of w^2, that `mask` drops."""
    energy = full(prunable.weight).float().square()
    total = float(energy.sum())
    return float(energy.masked_fill(mask, 0.0).sum()) / total if total > 0 else 0.0


def _zeros(
    pruner: PrunerState, criterion: Criterion, fraction: float, stacks: dict[str, Tensor]
) -> dict[str, float]:
    stacks.update({name: scores_of(pruner, criterion, name) for name in pruner.prunables})
    patterns = {name: prunable.pattern for name, prunable in pruner.prunables.items()}
    return global_zeros(stacks, patterns, fraction, pruner.options.ceiling)


def _sunk(stack: Tensor, mask: Tensor, pattern: Pattern) -> Tensor:
    """The scores with what `mask` drops so low that no sum over a group or block with it can win.

    Finite, and not far below the rest, so that sums keep their precision.
    """
    if bool(mask.all()):
        return stack
    low, high = torch.aminmax(stack)
    width = pattern.group if isinstance(pattern, GroupPattern) else 1
    # A tiny extent counts as 1: equal scores must sink as well.
    step = torch.where(high > low, high - low, 1.0)
    return torch.where(mask, stack, low - (width + 1) * step)
