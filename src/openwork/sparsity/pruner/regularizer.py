"""Rules that change the gradient of a weight before the optimizer's step, as small values.

Each is called with stacks of matrices [stack, out, in] (`view.py`): the weight, its gradient, the pattern
and the mask, and returns the new gradient. A pruner takes them as `PrunerOptions(regularizers=...)`. The
training loop that they come from is the one of Intel Neural Compressor's documentation of sparsity: prune the
gradient, add the group lasso's, step, prune the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.mask import best_mask

_SMALLEST = 1e-30


@dataclass(frozen=True)
class GroupLasso:
    """Draws whole units of weights towards zero: those that the pattern keeps or drops together.

    Adds to the loss alpha * sum over units u of ||w_u||, whose gradient at w is alpha * w / ||w_u|| (0 where
    the whole unit is 0). A unit is a block of R x C weights, or the V weights of one input channel under a
    shared mask of N:M@V; for plain N:M it is a single weight, and this is the lasso, alpha * sign(w).
    alpha: at least 0; raises ValueError for another. Sources: Yuan & Lin 2006, "Model selection and
    estimation in regression with grouped variables", equation 2.1, without its factor for the size of a unit,
    which is the same for all; Intel Neural Compressor, `group_lasso`.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < math.inf:
            raise ValueError(f"The alpha of a group lasso is a number of at least 0, but it is {self.alpha}.")

    def __call__(self, weight: Tensor, gradient: Tensor, pattern: Pattern, mask: Tensor) -> Tensor:
        """The gradient of the loss with the penalty; weights that the mask drops count as zero."""
        kept = weight.detach().float().masked_fill(~mask, 0.0)
        norms = unit_norms(kept, *_unit(pattern))
        # The floor is below any norm of normal numbers, and 0 / floor is the 0 of an all-zero unit.
        return gradient + (self.alpha * kept / norms.clamp_min(_SMALLEST)).to(gradient.dtype)


@dataclass(frozen=True)
class GradientPruning:
    """Lets only those weights learn that the pattern's mask would keep: the others' gradients become zero.

    by: what the mask is chosen from. "weight", the magnitude of the weights, so that the gradient falls under
    the rule that prunes the weights after the step; "gradient", the gradient's own magnitude. The mask is
    chosen anew at each call. Source: `prune_gradient_with_magnitude` of the training loop in Intel Neural
    Compressor's documentation, which does not say which of the two it means.
    """

    by: Literal["weight", "gradient"] = "weight"

    def __post_init__(self) -> None:
        if self.by not in ("weight", "gradient"):
            raise ValueError(f'Gradients are pruned by "weight" or by "gradient", but this is {self.by!r}.')

    def __call__(self, weight: Tensor, gradient: Tensor, pattern: Pattern, mask: Tensor) -> Tensor:
        """The gradient, zero where the pattern's best mask drops."""
        chosen_from = weight if self.by == "weight" else gradient
        kept = best_mask(chosen_from.detach().float().square(), pattern)
        return gradient.masked_fill(~kept, 0.0)


def unit_norms(stack: Tensor, rows: int, columns: int) -> Tensor:
    """The Euclidean norm of the rows x columns unit that each element lies in; cut at the edges."""
    _, high, wide = stack.shape
    padded = functional.pad(stack, (0, -wide % columns, 0, -high % rows))
    units = padded.reshape(len(stack), padded.shape[1] // rows, rows, -1, columns)
    norms: Tensor = units.square().sum(dim=(2, 4)).sqrt()
    return norms.repeat_interleave(rows, 1).repeat_interleave(columns, 2)[:, :high, :wide]


def _unit(pattern: Pattern) -> tuple[int, int]:
    if isinstance(pattern, BlockPattern):
        return pattern.rows, pattern.columns
    if isinstance(pattern, GroupPattern):
        return pattern.shared, 1
    raise TypeError(f"{type(pattern).__name__} is not a pattern that has units of weights.")
