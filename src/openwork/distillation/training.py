"""The training loop: student and teacher on the same batches until the budget is spent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from openwork.distillation.batches import TokenBatches
from openwork.distillation.checkpoint import Checkpoint
from openwork.distillation.loss import Outputs
from openwork.distillation.settings import Budget, DistillationSettings
from openwork.models import SentenceEmbedder
from openwork.sparsity.pruner.pruner import Pruner
from openwork.support.precision import bfloat16_is_faster
from openwork.support.progress import Advance, progress_bar

_SMOOTHING = 0.95


@dataclass
class DistillationReport:
    """How far a run is. loss: smoothed over about 20 steps. seconds: of training,
    over all parts of a resumed run.
    """

    steps: int = 0
    seconds: float = 0.0
    loss: float = 0.0

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def add(self, loss: float, seconds: float) -> None:
        """Count one more step."""
        self.loss = loss if self.steps == 0 else _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss
        self.steps += 1
        self.seconds += seconds


def distil(
    student: SentenceEmbedder,
    teacher: SentenceEmbedder,
    texts: Sequence[Sequence[int]],
    budget: Budget,
    pruner: Pruner | None = None,
    settings: DistillationSettings | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> DistillationReport:
    """Train `student` in place to give what `teacher` gives on `texts`.

    texts: token ids of unlabelled texts, without padding. pruner: holds the student's masks through every
    step, by its schedule, and checks them at both ends. checkpoint: written every
    `settings.checkpoint_seconds` and at the end; if the file is there already, the run goes on from it.
    progress: show a bar on the standard error stream.
    Raises ValueError for texts that are missing or empty, a checkpoint of another run, or broken masks, and
    FloatingPointError if the loss is no longer finite.
    """
    settings = settings or DistillationSettings()
    batches = TokenBatches(texts, settings.batch_size, settings.seed)
    fingerprint = _fingerprint(student, batches, settings, pruner)
    store = Checkpoint(checkpoint, fingerprint, pruner) if checkpoint else None
    with _frozen(student, settings.frozen) as trained, progress_bar("distilling", 1.0, progress) as advance:
        trainer = _Trainer(student, teacher, batches, trained, settings)
        stored = store.read(student, trainer.optimizer) if store else None
        with _attached(pruner, trainer.optimizer):
            return _train(trainer, DistillationReport(**(stored or {})), budget, store, advance)


class _Trainer:
    """Student, teacher and optimizer, and one step of them."""

    def __init__(
        self,
        student: SentenceEmbedder,
        teacher: SentenceEmbedder,
        batches: TokenBatches,
        trained: list[nn.Parameter],
        settings: DistillationSettings,
    ) -> None:
        self.student, self.teacher, self.batches, self.trained = student, teacher, batches, trained
        self.settings = settings
        self.bfloat16 = bfloat16_is_faster() if settings.bfloat16 is None else settings.bfloat16
        self.optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0, fused=True)

    def step(self, number: int, rate: float) -> float:
        """Train on batch `number` with learning rate `rate`; the loss."""
        ids, mask = self.batches[number]
        with torch.inference_mode():
            target = self._outputs(self.teacher, ids, mask)
        loss = self.settings.loss(self._outputs(self.student, ids, mask), target, mask)
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The distillation loss is {value} at step {number}; lower the learning rate (now {rate:g}) "
                "and go on from the last checkpoint."
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return value

    def _outputs(self, model: SentenceEmbedder, ids: Tensor, mask: Tensor) -> Outputs:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            states = model.hidden_states(ids, mask)
        return Outputs(states, model.pool(states[-1].float(), mask))


def _train(
    trainer: _Trainer, report: DistillationReport, budget: Budget, store: Checkpoint | None, advance: Advance
) -> DistillationReport:
    stored, written = report.steps, time.monotonic()
    while (spent := budget.spent(report.steps, report.seconds)) < 1.0:
        began = time.monotonic()
        loss = trainer.step(report.steps, trainer.settings.rate(report.steps, spent))
        report.add(loss, time.monotonic() - began)
        advance(spent, f"step {report.steps}, {report.steps_per_second:.2f}/s, loss {report.loss:.4f}")
        if store and time.monotonic() - written >= trainer.settings.checkpoint_seconds:
            store.write(trainer.student, trainer.optimizer, vars(report))
            stored, written = report.steps, time.monotonic()
    if store and stored != report.steps:
        store.write(trainer.student, trainer.optimizer, vars(report))
    advance(1.0, f"{report.steps} steps, loss {report.loss:.4f}")
    return report


@contextmanager
def _attached(pruner: Pruner | None, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let the pruner follow the optimizer while the block runs; its masks are checked at both ends."""
    if pruner is None:
        yield
        return
    # A pruner that waits for its first step has no masks to keep to as yet; attaching would mend broken ones.
    if pruner.zeros > 0.0:
        pruner.verify()
    attachment = pruner.attach(optimizer)
    try:
        yield
        pruner.verify()
    finally:
        attachment.remove()


@contextmanager
def _frozen(student: nn.Module, rules: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """Give the parameters to train; the others need no gradient while the block runs."""
    frozen, trained = [], []
    for name, parameter in student.named_parameters():
        if any(fnmatchcase(name, rule) for rule in rules):
            frozen.append((parameter, parameter.requires_grad))
        elif parameter.requires_grad:
            trained.append(parameter)
    if not trained:
        raise ValueError(
            f"Nothing is left to train: {', '.join(rules)} and requires_grad freeze every parameter."
        )
    try:
        for parameter, _ in frozen:
            parameter.requires_grad_(False)
        yield trained
    finally:
        for parameter, before in frozen:
            parameter.requires_grad_(before)


def _fingerprint(
    student: nn.Module, batches: TokenBatches, settings: DistillationSettings, pruner: Pruner | None
) -> str:
    recipe = [getattr(settings, name) for name in ("learning_rate", "warmup_steps", "loss", "frozen", "clip")]
    shapes = [(name, list(parameter.shape)) for name, parameter in student.named_parameters()]
    text = f"{batches.digest()} {recipe} {shapes}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{pruner or 'dense'} {digest}"
