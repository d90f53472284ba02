"""How long and in which steps a student is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from openwork.distillation.loss import DistillationLoss


@dataclass(frozen=True)
class Budget:
    """How long to train: `minutes` of training time, `steps`, or both, whichever ends first."""

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.steps) if value is not None]
        if not given or not all(math.isfinite(value) and value >= 0 for value in given):
            raise ValueError(
                f"A budget gives minutes, steps or both, each at least 0, but minutes is {self.minutes} "
                f"and steps is {self.steps}."
            )

    def spent(self, steps: int, seconds: float) -> float:
        """The fraction of the budget that is used up, in [0, 1]."""
        parts = []
        if self.steps is not None:
            parts.append(steps / self.steps if self.steps else 1.0)
        if self.minutes is not None:
            parts.append(seconds / (60 * self.minutes) if self.minutes else 1.0)
        return min(1.0, max(parts))


@dataclass(frozen=True)
class DistillationSettings:
    """The recipe of a distillation.

    learning_rate: the highest, reached after `warmup_steps` and falling to 0 along a cosine as the budget is
    spent. frozen: shell-style patterns of parameter names that are not trained. clip: largest norm of the
    gradient. bfloat16: run products in bfloat16; None measures whether that is faster here.
    checkpoint_seconds: time between two writes of the checkpoint.
    """

    batch_size: int = 32
    learning_rate: float = 2e-4
    warmup_steps: int = 20
    loss: DistillationLoss = field(default_factory=DistillationLoss)
    frozen: tuple[str, ...] = ("*embeddings.*",)
    clip: float = 1.0
    bfloat16: bool | None = None
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_rate", "warmup_steps", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, but it is {getattr(self, name)}.")

    def rate(self, step: int, spent: float) -> float:
        """The learning rate of step number `step` (from 0) when the fraction `spent` of the budget
        is used up.
        """
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, spent)))
