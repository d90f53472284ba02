"""What the callbacks share: attaching a pruner to those of torch's optimizers that train its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from openwork.sparsity.pruner.optimizer_hooks import Attachment
from openwork.sparsity.pruner.optimizers import torch_optimizer
from openwork.sparsity.pruner.pruner import Pruner
from openwork.sparsity.pruner.report import PruningReport


class Attachments:
    """What a callback holds of a pruner while its framework trains."""

    def __init__(self, pruner: Pruner) -> None:
        self.pruner = pruner
        self._held: list[Attachment] = []

    def attach(self, optimizers: Sequence[Any]) -> None:
        """Attach the pruner to each of `optimizers` that trains one of its weights.

        optimizers: torch's, or wrappers that hold one as `.optimizer` (Accelerate's, Lightning's). Raises
        ValueError if none of them trains a pruned weight.
        """
        unwrapped = [torch_optimizer(optimizer) for optimizer in optimizers]
        training = [optimizer for optimizer in unwrapped if _trains(optimizer, self.pruner)]
        if not training:
            raise ValueError(
                f"None of the {len(unwrapped)} optimizers trains a pruned weight; make the pruner on the "
                "model that is trained."
            )
        self._held = [self.pruner.attach(optimizer) for optimizer in training]

    def release(self) -> None:
        """Let go of the optimizers."""
        for attachment in self._held:
            attachment.remove()
        self._held = []

    def finish(self) -> PruningReport:
        """Let go of the optimizers and verify every mask; the report.

        Raises ValueError, naming layer, row and group, if a mask or a weight breaks its rule.
        """
        self.release()
        self.pruner.verify()
        return self.pruner.report()


def refuse_another_model(pruner: Pruner, trained: nn.Module, by: str) -> None:
    """Raise ValueError unless each pruned layer is a module of the model `trained` by `by`."""
    modules = {id(module) for module in trained.modules()}
    missing = [name for name, module in pruner.layers.items() if id(module) not in modules]
    if missing:
        raise ValueError(
            f"The {by} trains another model than the pruner's: it lacks the pruned layer {missing[0]}. Make "
            f"the pruner on the very model that is given to the {by}."
        )


def _trains(optimizer: torch.optim.Optimizer, pruner: Pruner) -> bool:
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    return any(id(prunable.weight) in trained for prunable in pruner.prunables.values())
