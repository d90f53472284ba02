"""Distillation: teach a pruned sentence embedder to give what the dense one gives, on text without labels.

The loss compares hidden states, embeddings and the similarities within a batch; the teacher only runs
forward. A run has a budget in minutes or in steps, and its checkpoint lets it go on where it stopped.
"""

from openwork.distillation.batches import TokenBatches, padded_batch
from openwork.distillation.loss import DistillationLoss, Outputs
from openwork.distillation.settings import Budget, DistillationSettings
from openwork.distillation.training import DistillationReport, distil

__all__ = [
    "Budget",
    "DistillationLoss",
    "DistillationReport",
    "DistillationSettings",
    "Outputs",
    "TokenBatches",
    "distil",
    "padded_batch",
]
