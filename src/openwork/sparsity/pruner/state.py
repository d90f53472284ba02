"""What the parts of a pruner see of it: plain state, held in one place."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.pruner.criterion import Criterion
from openwork.sparsity.pruner.options import PrunerOptions
from openwork.sparsity.pruner.schedule import Schedule


class PrunerState(Protocol):
    """A pruner's state.

    model: what is pruned. prunables: its pruned weights by name. scores: what the criterion remembers of
    each. dense: the dense weights while masks move (SR-STE), else empty. steps: how many optimizer steps
    were counted.
    """

    model: nn.Module
    schedule: Schedule
    criterion: Criterion
    options: PrunerOptions
    prunables: dict[str, Prunable]
    scores: dict[str, dict[str, Tensor]]
    dense: dict[str, Tensor]
    steps: int
