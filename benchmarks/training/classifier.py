"""The training loop of a classifier on the digits: SGD along a cosine, any hooks on its optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.support.progress import Advance

from .digits import Batches, Digits, Part

_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum.

    learning_rate: the highest, reached after `warmup_steps` and falling to 0 along a cosine.
    """

    steps: int
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_steps: int = 20

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"Steps, batch size and learning rate must be positive, but this is {self}.")

    def rate(self, step: int) -> float:
        """The learning rate of step number `step`, from 0."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """The optimizer for `model`; the loop sets its learning rate before every step."""
        return torch.optim.SGD(
            model.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
        )


def loss(model: nn.Module, batch: Part) -> Tensor:
    """The cross-entropy of one batch."""
    return functional.cross_entropy(model(batch.images), batch.labels)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Part, rate: float) -> float:
    """One step of training with learning rate `rate`; the loss before it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(value.detach())


def train(
    model: nn.Module,
    digits: Digits,
    recipe: Recipe,
    seed: int,
    prepare: Callable[[torch.optim.Optimizer], object] | None = None,
    advance: Advance | None = None,
) -> float:
    """Train `model` in place for `recipe.steps`; the mean loss of the last tenth of them.

    prepare: called once with the optimizer, before the first step. Raises FloatingPointError if the loss is
    no longer finite.
    """
    optimizer = recipe.optimizer(model)
    if prepare is not None:
        prepare(optimizer)
    batches, last = Batches(digits, recipe.batch_size, seed), []
    model.train()
    for number in range(recipe.steps):
        value = step(model, optimizer, batches[number], recipe.rate(number))
        if not math.isfinite(value):
            raise FloatingPointError(f"The loss is {value} at step {number}; lower the learning rate.")
        if number >= recipe.steps - max(1, recipe.steps // 10):
            last.append(value)
        if advance is not None:
            advance(number + 1)
    return sum(last) / len(last)


@torch.no_grad()
def accuracy(model: nn.Module, part: Part) -> float:
    """The fraction of `part` that `model` classifies rightly, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        scores = torch.cat([model(images) for images in torch.split(part.images, _EVALUATED_AT_ONCE)])
    finally:
        model.train(training)
    return float((scores.argmax(1) == part.labels).float().mean())
