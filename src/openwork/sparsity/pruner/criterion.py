"""Criteria: how much each weight is worth keeping, from the weight and the gradients seen so far.

A criterion is a pure value with a name. What it remembers between steps lies in a plain dict of tensors that
its caller owns and saves; each is float32 of the weight's shape. Everything is elementwise, so weights that
several processes hold together (DTensor) work the same and give the same scores for any way of sharding.

A gradient's NaN and infinities are not accumulated: such an element keeps its old score, as if the step had
not been. (Loss scaling skips the steps where they arise, and one of them would stand in the sum for ever.)

Two criteria need calibration inputs in the place of gradients: `wanda.py` and `reconstruction.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

SCORE = "score"


class Criterion(ABC):
    """Gives every weight of a layer a score; the weights with the largest scores are kept.

    `Criterion.parse(name)` makes one, and `str(criterion)` gives the name back.
    """

    name: ClassVar[str]
    needs_gradient: ClassVar[bool] = True

    @staticmethod
    def parse(text: str) -> Criterion:
        """The criterion named `text`; raises ValueError, listing the names, if there is none."""
        kinds = {kind.name: kind for kind in (Magnitude, Gradient, Snip, SnipMomentum, Movement)}
        kind = kinds.get(text.strip()) if isinstance(text, str) else None
        if kind is None:
            raise ValueError(
                f"{text!r} is not a pruning criterion; the names are "
                + ", ".join(f'"{name}"' for name in kinds)
                + ". Wanda and SparseGPT rank by calibration inputs; they are methods of `Pruner.prune`."
            )
        return kind()

    @staticmethod
    def of(given: Criterion | str) -> Criterion:
        """The criterion itself, or the one that a text names; raises ValueError for anything else."""
        if isinstance(given, Criterion):
            return given
        if not isinstance(given, str):
            raise ValueError(
                f'A pruning criterion is a Criterion or its name, like "magnitude", but {given!r} came; '
                'leave the argument out for "magnitude".'
            )
        return Criterion.parse(given)

    def __str__(self) -> str:
        return self.name

    def observed(self, state: dict[str, Tensor]) -> bool:
        """Whether `state` holds what `scores` needs: a gradient was seen, or none is needed."""
        return not self.needs_gradient or SCORE in state

    @torch.no_grad()
    def observe(self, state: dict[str, Tensor], weight: Tensor, gradient: Tensor) -> None:
        """Take one step's gradient into account.

        state: this weight's, empty at first, changed in place. weight, gradient: floating point, equal
        shapes; the gradient is the loss's own (not multiplied for loss scaling). Raises ValueError where the
        shapes differ.
        """
        if not self.needs_gradient:
            return
        if weight.shape != gradient.shape:
            raise ValueError(
                f"The gradient of a weight of shape {list(weight.shape)} must have the same shape, but its "
                f"shape is {list(gradient.shape)}."
            )
        old = state.get(SCORE)
        if old is None:
            old = torch.zeros_like(weight, dtype=torch.float32)
        new = self._updated(old, weight.detach().float(), gradient.detach().float())
        # False for NaN too; `isfinite` takes four passes over memory for this, in every step.
        state[SCORE] = torch.where(new.abs() < torch.inf, new, old)

    @torch.no_grad()
    def scores(self, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        """How much each weight is worth: float32 of the weight's shape.

        Raises ValueError if no gradient was observed yet and one is needed.
        """
        if not self.observed(state):
            raise ValueError(
                f'The criterion "{self}" ranks weights by their gradients but has observed none yet; take a '
                "training step before the masks are made."
            )
        return self._ranked(weight.detach(), state)

    def _ranked(self, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        return state[SCORE]

    @abstractmethod
    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        """The new score, where all numbers are finite."""


@dataclass(frozen=True)
class Magnitude(Criterion):
    """S = w^2.

    Squares and not |w|: summed over a block, or over the outputs that share a mask, they are the energy that
    stays, which is what the output's error grows with; between single weights the order is that of |w|.
    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", section 3.
    """

    name = "magnitude"
    needs_gradient = False

    def _ranked(self, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        return weight.float().square()

    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        return old


@dataclass(frozen=True)
class Gradient(Criterion):
    """S = sum over the steps of |g|.

    A sum and not a mean: both rank alike, and a sum needs no count beside it.
    Source: Intel Neural Compressor, criterion "gradient", which takes |g| of the last step alone.
    """

    name = "gradient"

    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        return gradient.abs().add_(old)


@dataclass(frozen=True)
class Snip(Criterion):
    """S = sum over the steps of |w * g|: by how much the loss moves, to first order, if w is removed.

    The paper divides by the sum over all weights, which changes no rank and is left out. A weight at zero
    gains nothing, so a mask made from S alone never brings a pruned weight back before it has grown again.
    Neural Compressor takes the last step alone.
    Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", section 4.1.
    """

    name = "snip"

    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs_().add_(old)


@dataclass(frozen=True)
class SnipMomentum(Criterion):
    """S = decay * S + |w * g| in every step, so that old steps fade.

    decay: in [0, 1). Source: Intel Neural Compressor, criterion "snip_momentum", with 0.9.
    """

    decay: float = 0.9
    name = "snip-momentum"

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"The decay of old scores must lie in [0, 1), but it is {self.decay}.")

    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs_().add_(old, alpha=self.decay)


@dataclass(frozen=True)
class Movement(Criterion):
    """S = -sum over the steps of w * g: how far each weight was moved away from zero; may be negative.

    The paper scales the sum by the scores' learning rate, which changes no rank and is left out.
    Source: Sanh et al. 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", section 4.
    """

    name = "movement"

    def _updated(self, old: Tensor, weight: Tensor, gradient: Tensor) -> Tensor:
        return torch.addcmul(old, weight, gradient, value=-1.0)
