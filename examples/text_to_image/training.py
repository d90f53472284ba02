"""Training that goes on where it was stopped: the painter, dense and pruned, and the classifier."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.models.diffusion import NoiseSchedule
from openwork.sparsity import Pruner
from openwork.support.files import write_atomic
from openwork.support.progress import progress_bar

from .glyphs import draw, folded
from .settings import PATTERN, SEED

CHECKPOINT_EVERY = 100
BLANK_SHARE = 0.1
"""Of the captions that are left out, so that the UNet knows what pictures are like without one."""
AVERAGED = 0.995
"""Of the running mean of the weights, which paints better than the last weights do."""
EXCLUDED = ("text.*", "*.time_embedding.*", "*.conv_in", "*.conv_out")
CALIBRATION_BATCHES = 8
CLASSIFIER_STEPS, CLASSIFIER_BATCH = 800, 64
NOISY = 0.3
"""Deviation of the most noise on the classifier's pictures: samples are not as clean as what is drawn."""


@dataclass(frozen=True)
class Course:
    """How long to train, with what rate, and where the checkpoint lies; a pruner keeps its zeros."""

    steps: int
    batch: int
    rate: float
    checkpoint: Path
    title: str
    pruner: Pruner | None = None


def _batch(step: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noised pictures, times, ids and the noise of a step: a function of its number alone."""
    rng = np.random.default_rng((SEED, int(step < 0), abs(step)))
    drawn, schedule = draw(size, rng), NoiseSchedule()
    clear, times = folded(drawn.pictures), rng.integers(schedule.steps, size=size)
    noise = rng.standard_normal(clear.shape).astype(np.float32)
    noised = torch.from_numpy(schedule.noised(clear.numpy(), noise, times))
    ids = torch.where(torch.from_numpy(rng.random((size, 1)) < BLANK_SHARE), 0, drawn.ids)
    return noised, torch.from_numpy(times), ids, torch.from_numpy(noise)


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a state to `path`, all or nothing."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, [buffer.getbuffer()])


class Run:
    """A training in progress: weights, their running mean, optimizer, and the number of the next step."""

    def __init__(self, model: nn.Module, course: Course) -> None:
        self.model, self.course, self.step = model, course, 0
        self.optimizer = torch.optim.AdamW(model.parameters(), course.rate, weight_decay=0.01)
        if course.checkpoint.exists():
            self._load(torch.load(course.checkpoint, weights_only=True))
        else:
            self.mean = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if course.pruner is not None:
            course.pruner.attach(self.optimizer)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean, self.step = state["mean"], state["step"]

    def save(self) -> None:
        state = {"model": self.model.state_dict(), "mean": self.mean, "step": self.step}
        save({**state, "optimizer": self.optimizer.state_dict()}, self.course.checkpoint)

    def rate(self) -> float:
        """The learning rate of the next step: up in the first ones, then down along a cosine."""
        warm = min(1.0, (self.step + 1) / 100)
        return (
            self.course.rate
            * warm
            * (0.02 + 0.98 * (1 + math.cos(math.pi * self.step / self.course.steps)) / 2)
        )

    def advance(self) -> float:
        """One step; its loss."""
        noised, times, ids, noise = _batch(self.step, self.course.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss = functional.mse_loss(self.model(noised, times, ids), noise)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        kept = min(AVERAGED, self.step / (self.step + 10))
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.mean[name].lerp_(tensor, 1 - kept)
            else:
                self.mean[name].copy_(tensor)
        return float(loss.detach())


def train(model: nn.Module, course: Course) -> nn.Module:
    """Train to the end of the course, from its checkpoint if there is one; gives the model in evaluation
    mode, with the mean of its weights."""
    run = Run(model.train(), course)
    with progress_bar(course.title, course.steps) as bar:
        smooth = 0.0
        while run.step < course.steps:
            loss = run.advance()
            smooth = loss if not smooth else 0.98 * smooth + 0.02 * loss
            bar(run.step, f"loss {smooth:.4f}")
            if run.step % CHECKPOINT_EVERY == 0 or run.step == course.steps:
                run.save()
    if course.pruner is not None:
        course.pruner.detach()
    model.load_state_dict(run.mean)
    return model.eval()


def calibration_batches(size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Inputs that stand for what the painter sees, of steps that no training takes."""
    return [_batch(-1 - number, size)[:3] for number in range(CALIBRATION_BATCHES)]


def pruner_of(model: nn.Module) -> Pruner:
    """The pruner of a painter: its UNet, but for the first and the last convolution and the time."""
    return Pruner(model, PATTERN, exclude=list(EXCLUDED))


def train_classifier(model: nn.Module, path: Path) -> nn.Module:
    """Train the classifier on drawn pictures with some noise, or read it where it was trained before."""
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    with progress_bar("classifier", CLASSIFIER_STEPS) as bar:
        for step in range(CLASSIFIER_STEPS):
            rng = np.random.default_rng((SEED + 1, step))
            drawn = draw(CLASSIFIER_BATCH, rng)
            spread = rng.uniform(0, NOISY, (CLASSIFIER_BATCH, 1, 1, 1))
            noise = rng.standard_normal(drawn.pictures.shape) * spread
            scores = model(drawn.pictures + torch.from_numpy(noise.astype(np.float32)))
            loss = functional.cross_entropy(scores, drawn.glyphs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar(step + 1, f"loss {float(loss.detach()):.3f}")
    save(model.state_dict(), path)
    return model.eval()
