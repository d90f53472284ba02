"""Dense model to sparse INT8 model: prune, distil, quantize, export."""

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openwork.distillation import Budget, DistillationLoss, DistillationSettings, distil, padded_batch
from openwork.export import export
from openwork.models import SentenceEmbedder
from openwork.quantization import QuantizationOptions, quantize
from openwork.sparsity import Calibration, Pruner
from openwork.support.files import write_atomic

from .runners import INPUTS

BATCH_SIZE = 16
RECIPES = {
    "32:64": DistillationSettings(learning_rate=5e-5),
    "16:64": DistillationSettings(learning_rate=5e-4, loss=DistillationLoss(intermediate=1.0)),
}
"""Where the default recipe does not suit: a start that is good already is lost at a high rate, and at 75%
zeros the inner layers need guidance of their own."""


@dataclass(frozen=True)
class Material:
    """Token ids of training texts. All to distil from, the first ones to prune and to calibrate with."""

    all: Sequence[Sequence[int]]
    pruning: Sequence[Sequence[int]]
    calibration: Sequence[Sequence[int]]


def token_batches(texts: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
    """input_ids and attention_mask of all `texts`, shortest first."""
    ordered = sorted(texts, key=len)
    return [padded_batch(ordered[at : at + BATCH_SIZE]) for at in range(0, len(ordered), BATCH_SIZE)]


def prune(teacher: SentenceEmbedder, pattern: str, material: Material, target: Path) -> None:
    """Prune a copy of the teacher in one shot and write its state, masks included."""
    student = copy.deepcopy(teacher)
    calibration = Calibration(token_batches(material.pruning))
    Pruner(student, pattern).prune("sparsegpt", calibration, progress=True)
    save(student, target)


def train(
    teacher: SentenceEmbedder, pattern: str, pruned: Path, minutes: float, texts: Any, target: Path
) -> str:
    """Distil the pruned model for `minutes`, from its checkpoint if one is there, and write its state."""
    student, pruner = restore(teacher, pattern, pruned)
    checkpoint = pruned.with_suffix(".checkpoint")
    report = distil(
        student,
        teacher,
        texts,
        Budget(minutes=minutes),
        pruner=pruner,
        settings=RECIPES.get(pattern),
        checkpoint=checkpoint,
        progress=True,
    )
    save(student, target)
    return f"{pattern}: {report.steps} steps in {report.seconds / 60:.1f} minutes, loss {report.loss:.4f}"


def restore(teacher: SentenceEmbedder, pattern: str, source: Path) -> tuple[SentenceEmbedder, Pruner]:
    """The sparse model that `save` wrote, with its masks checked."""
    student = copy.deepcopy(teacher)
    pruner = Pruner(student, pattern)
    student.load_state_dict(torch.load(source, weights_only=True))
    pruner.verify()
    return student, pruner


def save(model: nn.Module, target: Path) -> None:
    """Write the state of `model`, all or nothing."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    write_atomic(target, [buffer.getbuffer()])


def to_onnx(model: SentenceEmbedder, target: Path) -> None:
    """Write `model`, float or quantized, as ONNX with free batch and length."""
    model.encoder.set_attention("explicit")
    export(model, {name: torch.ones(2, 16, dtype=torch.int64) for name in INPUTS}, target)


def to_int8(model: SentenceEmbedder, calibration: Sequence[Sequence[int]]) -> SentenceEmbedder:
    """A copy of `model` with INT8 linear layers, their scales chosen on the calibration texts."""
    batches = [dict(zip(INPUTS, batch, strict=True)) for batch in token_batches(calibration)]
    options = QuantizationOptions(style="openwork")
    return quantize(model, batches, options, progress=True)  # type: ignore[return-value]
