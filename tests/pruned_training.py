"""A small training run that is the same on one process and on several: for tests of pruning in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openwork.sparsity import Pruner
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.regularizer import GroupLasso

STEPS, BREAK, WORKERS, SEED = 8, 3, 2, 20

Optimizer = Callable[[Any], torch.optim.Optimizer]


class Network(nn.Module):
    """One layer of each kind that is read in its own way; sizes that two processes share evenly."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Conv1d(8, 16, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.hidden = nn.Linear(16, 32)
        self.out = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.taps(x).transpose(1, 2)
        steps = steps + self.attention(steps, steps, steps, need_weights=False)[0]
        return self.out(nn.functional.gelu(self.hidden(steps))).mean(dim=1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Case:
    """How a run prunes and which optimizer it takes."""

    pattern: str
    schedule: str
    criterion: str = "magnitude"
    optimizer: str = "adamw"
    options: PrunerOptions | None = None


SHARED = PrunerOptions(scope="global", ceiling=0.9, regularizers=(GroupLasso(0.01),))

CASES = {
    "one-shot": Case("2:4", "one-shot", optimizer="sgd"),
    "gradual": Case("2:4@2", "gradual:cubic:1:6", "snip-momentum"),
    "blocks": Case("4x1:0.75", "gradual:linear:1:6:every=2", options=SHARED),
    "sr-ste": Case("2:4", "sr-ste:5:0.01", optimizer="sgd"),
}


def network() -> Network:
    torch.manual_seed(SEED)
    return Network()


def optimizer_of(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    if case.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return torch.optim.AdamW(model.parameters(), lr=0.02)


def pruner_of(case: Case, model: nn.Module) -> Pruner:
    return Pruner(model, case.pattern, schedule=case.schedule, criterion=case.criterion, options=case.options)


def share(step: int, worker: int) -> tuple[Tensor, Tensor]:
    """The inputs and targets of one worker in one step."""
    generator = torch.Generator().manual_seed(1000 * SEED + 10 * step + worker)
    return torch.randn(4, 8, 6, generator=generator), torch.randn(4, 8, generator=generator)


def loss_of(model: nn.Module, step: int, worker: int) -> Tensor:
    inputs, targets = share(step, worker)
    return nn.functional.mse_loss(model(inputs), targets)


def step_alone(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step on the shares of all workers, one after the other.

    Each share's gradient is halved before the sum, as the workers do it; halves are exact, and the sum of two
    numbers has one value, so that the gradient has the workers' bits.
    """
    optimizer.zero_grad()
    for worker in range(WORKERS):
        (loss_of(model, step, worker) / WORKERS).backward()
    optimizer.step()


def run_alone(case: Case, until: int = STEPS) -> tuple[Network, torch.optim.Optimizer, Pruner]:
    """The run on one process, from its start to step `until`."""
    model = network()
    optimizer, pruner = optimizer_of(case, model), pruner_of(case, model)
    pruner.attach(optimizer)
    for step in range(until):
        step_alone(model, optimizer, step)
    return model, optimizer, pruner
