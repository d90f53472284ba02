"""What a pruner does beside setting and holding masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from openwork.patterns.pattern import Pattern

Scope = Literal["local", "global"]


class Regularizer(Protocol):
    """A rule that changes the gradient of a weight before the optimizer's step."""

    def __call__(self, weight: Tensor, gradient: Tensor, pattern: Pattern, mask: Tensor) -> Tensor:
        """The new gradient; all are stacks of matrices [stack, out, in]."""
        ...


@dataclass(frozen=True)
class PrunerOptions:
    """How a pruner shares zeros out and what it adds to the training.

    scope: "local" gives every layer the pattern's fraction of zeros; "global" ranks the blocks of all layers
    that carry block patterns together, so that the model as a whole has it, and so the weights of N:M layers,
    but only on the way: at the end N:M is fixed for each group (`budget.py`). ceiling: the largest fraction
    of zeros that "global" may give a layer. regularizers: see `regularizer.py`, applied in this order.
    mask_gradients: zero the gradients of pruned weights, so that no momentum gathers for them.
    """

    scope: Scope = "local"
    ceiling: float = 0.98
    regularizers: tuple[Regularizer, ...] = ()
    mask_gradients: bool = True

    def __post_init__(self) -> None:
        if self.scope not in ("local", "global"):
            raise ValueError(f'The scope of a budget is "local" or "global", but it is {self.scope!r}.')
        if not 0.0 < self.ceiling <= 1.0:
            raise ValueError(f"The ceiling of a layer's zeros lies in (0, 1], but it is {self.ceiling}.")
