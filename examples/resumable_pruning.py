"""Prune a small ResNet on scikit-learn's digits while it trains, in a way that survives being killed.

python -m examples.resumable_pruning --schedule gradual:cubic:0:60:every=5 --checkpoint run.pt

Start it again after any interruption, SIGKILL included, and it goes on from the last checkpoint with the
same bits: every loss and every mask is what it would have been. It says one JSON line after each step.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from openwork.models import small_resnet
from openwork.sparsity import Pruner
from openwork.support.files import write_atomic


class Training:
    """All that a checkpoint must hold: model, optimizer, pruner, position in the data, random state."""

    def __init__(self, pattern: str, schedule: str, criterion: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.seed, self.step = seed, 0
        # Dropout draws from torch's own generator, whose state the checkpoint must hold too.
        self.model = nn.Sequential(small_resnet(), nn.Dropout(0.1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.pruner = Pruner(self.model, pattern, schedule=schedule, criterion=criterion)
        bunch = load_digits()
        self.images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
        self.labels = torch.tensor(bunch.target)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The batch of the present step: a function of seed and step alone, so no loader is rewound."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        chosen = torch.randint(len(self.labels), (32,), generator=generator)
        return self.images[chosen], self.labels[chosen]

    def train_step(self) -> float:
        """One step; the loss before it."""
        images, labels = self.batch()
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """All of it, as `torch.load(weights_only=True)` reads it back."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`; attach the pruner after this."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])
        self.step = state["step"]
        torch.set_rng_state(state["random"])

    def fingerprint(self) -> str:
        """A digest of all masks and weights."""
        digest = hashlib.blake2b(digest_size=12)
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()


def save(training: Training, path: Path) -> None:
    """Write the checkpoint to a temporary file and rename it: a reader sees the old one or the new one."""
    buffer = io.BytesIO()
    torch.save(training.state(), buffer)
    write_atomic(path, [buffer.getbuffer()])


def run(training: Training, steps: int, checkpoint: Path, every: int) -> None:
    """Train up to `steps`, from the checkpoint if there is one, and say so after each step."""
    if checkpoint.exists():
        training.load(torch.load(checkpoint, weights_only=True))
    training.pruner.attach(training.optimizer)
    while training.step < steps:
        loss = training.train_step()
        said = {"step": training.step, "loss": loss.hex(), "state": training.fingerprint()}
        print(json.dumps(said), flush=True)
        if training.step % every == 0:
            save(training, checkpoint)
    training.pruner.verify()


def main(arguments: list[str] | None = None) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pattern", default="2:4")
    parser.add_argument("--schedule", default="gradual:cubic:0:60:every=5")
    parser.add_argument("--criterion", default="magnitude")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.use_deterministic_algorithms(True)
    training = Training(given.pattern, given.schedule, given.criterion, given.seed)
    run(training, given.steps, given.checkpoint, given.every)


if __name__ == "__main__":
    main()
