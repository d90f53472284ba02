"""What pruning costs in time: the masks of ResNet-50, and the step hook within a ResNet-18 training step."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from benchmarks.training.cells import write_json
from openwork.bench.latency import Options, Timing, measure
from openwork.models import resnet18, resnet50
from openwork.sparsity import Pruner
from openwork.sparsity.masks.ends import EVERY
from openwork.support.machine import this_machine
from openwork.support.progress import progress_bar

PATTERN = "2:4"
MOST_MASK_SECONDS = 0.5
MOST_HOOK_FRACTION = 0.03
BATCH, PIXELS = 32, 224
_MASK_REPEATS = 7
_STEP_OPTIONS = Options(warm_up=0.0, duration=20.0, turn=0.01, settle=0.0, minimum_rounds=5)
_HOOK_OPTIONS = Options(warm_up=0.5, duration=5.0, turn=0.05, minimum_rounds=30)


@dataclass(frozen=True)
class Overhead:
    """Medians in seconds.

    masks: choosing and applying all masks of ResNet-50. step: a whole training step of ResNet-18 without a
    pruner. optimizer_with, optimizer_without: the optimizer's part of it. hook: their difference, the median
    over interleaved rounds. step_ratio: a whole step with the pruner over one without, likewise.
    """

    masks: float
    step: float
    optimizer_with: float
    optimizer_without: float
    hook: float
    step_ratio: float

    @property
    def hook_fraction(self) -> float:
        """The hook's part of a training step."""
        return self.hook / self.step


def mask_seconds(repeats: int = _MASK_REPEATS) -> list[float]:
    """How long all masks of ResNet-50 take, chosen by magnitude and applied, in each of `repeats`."""
    torch.manual_seed(0)
    pruner = Pruner(resnet50(), PATTERN, EVERY, schedule="one-shot")
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        pruner.renew()
        found.append(time.perf_counter() - began)
    return found


def step_call(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: int, pixels: int
) -> Callable[[], None]:
    """A whole training step on random images."""
    images = torch.randn(batch, 3, pixels, pixels)
    labels = torch.randint(1_000, (batch,))

    def call() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return call


def hook_overhead(
    batch: int = BATCH,
    pixels: int = PIXELS,
    step_options: Options = _STEP_OPTIONS,
    hook_options: Options = _HOOK_OPTIONS,
    told: Callable[[float], None] = lambda done: None,
) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """Timings of whole steps, and of the optimizer's part alone, with and without a pruner, interleaved."""
    torch.manual_seed(0)
    plain = resnet18().train()
    pruned = copy.deepcopy(plain)
    optimizers = {
        "without": torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9),
        "with": torch.optim.SGD(pruned.parameters(), lr=1e-3, momentum=0.9),
    }
    pruner = Pruner(pruned, PATTERN, EVERY)
    pruner.attach(optimizers["with"])
    models = {"without": plain, "with": pruned}
    steps = {name: step_call(models[name], optimizers[name], batch, pixels) for name in models}
    whole = measure(steps, step_options, lambda done: told(0.8 * done))
    # The gradients of the last step stay, so the optimizers have their usual work.
    parts = measure({name: found.step for name, found in optimizers.items()}, hook_options)
    told(1.0)
    pruner.verify()
    return whole, parts


def overhead(told: Callable[[float], None] = lambda done: None) -> Overhead:
    """Everything, as medians."""
    masks = mask_seconds()
    whole, parts = hook_overhead(told=told)
    return Overhead(
        masks=float(np.median(masks)),
        step=whole["without"].median / 1e3,
        optimizer_with=parts["with"].median / 1e3,
        optimizer_without=parts["without"].median / 1e3,
        hook=float(np.median(parts["with"].turns - parts["without"].turns)) / 1e3,
        step_ratio=float(np.median(whole["with"].turns / whole["without"].turns)),
    )


def sentences(found: Overhead) -> list[str]:
    """The outcome in words."""
    masks = "within" if found.masks < MOST_MASK_SECONDS else "above"
    hook = "within" if found.hook_fraction < MOST_HOOK_FRACTION else "above"
    return [
        f"Masks of ResNet-50 at {PATTERN}: {1e3 * found.masks:.0f} ms ({masks} {1e3 * MOST_MASK_SECONDS:.0f} "
        "ms).",
        f"Step hook on ResNet-18, batch {BATCH} at {PIXELS}x{PIXELS}: {1e3 * found.hook:.1f} ms of a step of "
        f"{1e3 * found.step:.0f} ms, {found.hook_fraction:.2%} ({hook} {MOST_HOOK_FRACTION:.0%}); whole "
        f"steps with and without it, interleaved: {found.step_ratio:.3f}.",
    ]


def main(console: Console, work: Path) -> None:
    """Measure, print, write as JSON."""
    machine = this_machine(("openwork", "torch"))
    with progress_bar("overhead", 1.0, sys.stderr.isatty()) as advance:
        found = overhead(lambda done: advance(done))
    console.print(machine.line(torch.get_num_threads()), style="dim", soft_wrap=True, highlight=False)
    for sentence in sentences(found):
        console.print(sentence, soft_wrap=True, highlight=False)
    work.mkdir(parents=True, exist_ok=True)
    record = {**asdict(found), "hook_fraction": found.hook_fraction, "machine": machine.record()}
    write_json(work / "overhead.json", record)
