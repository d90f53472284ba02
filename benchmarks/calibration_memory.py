"""The memory that calibrating ResNet-50 takes: every kind of observer on every tensor that is quantized.

python -m benchmarks.calibration_memory                                   10,000 batches, all kinds at once
python -m benchmarks.calibration_memory --batches 200 --kinds entropy     one kind, quickly
python -m benchmarks.calibration_memory --json memory.json

Observed are the inputs of all convolutions and of the linear layer and both inputs of every residual
addition. What counts is the peak of the process's resident memory over that of the same model running the
same batches unobserved, as the operating system reports it; it includes the choice of all ranges at the end.
The magnitudes of the batches differ by powers of ten, so that histograms have to widen.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from openwork.models.resnet import resnet50
from openwork.quantization.observers.observer import Observer, ObserverKind, make_observer
from openwork.support.files import write_atomic
from openwork.support.machine import this_machine
from openwork.support.progress import progress_bar

KINDS: tuple[ObserverKind, ...] = get_args(ObserverKind)

# Batches that run before the unobserved peak is read; it no longer grows after the first few.
UNOBSERVED = 12

# How often along the way the memory is noted.
NOTES = 10


@dataclass(frozen=True)
class Memory:
    """What one run took; memory in MiB.

    tensors, observers: how many were observed, by how many observers. model: peak without observers. peak:
    with them. along: resident memory at equal distances along the way. seconds_per_batch: with the observers,
    and without.
    """

    batches: int
    images: int
    size: int
    kinds: tuple[str, ...]
    tensors: int
    observers: int
    model: float
    peak: float
    along: tuple[float, ...]
    seconds_per_batch: float
    seconds_unobserved: float

    @property
    def above_model(self) -> float:
        """What the observers added to the peak, in MiB."""
        return self.peak - self.model

    def lines(self) -> str:
        """The run as text."""
        along = " ".join(f"{resident:.0f}" for resident in self.along)
        return (
            f"{self.batches} batches of {self.images} x {self.size} x {self.size}, {self.observers} "
            f"observers ({', '.join(self.kinds)}) on {self.tensors} tensors\n"
            f"peak {self.peak:.0f} MiB, the model alone {self.model:.0f} MiB: {self.above_model:.0f} MiB "
            f"above it\nresident along the way: {along} MiB\n"
            f"{1e3 * self.seconds_per_batch:.0f} ms a batch, {1e3 * self.seconds_unobserved:.0f} ms "
            f"unobserved"
        )


def resident(field: str) -> float:
    """`VmRSS`, the resident memory of this process, or `VmHWM`, its peak, in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status does not tell {field}; this benchmark needs Linux.")


def batches(count: int, images: int, size: int) -> Iterator[Tensor]:
    """Random images f32 [images, 3, size, size] whose magnitudes differ by powers of ten."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        exponent = float(torch.rand(1, generator=generator) * 4 - 2)
        yield torch.randn(images, 3, size, size, generator=generator) * 10**exponent


@contextmanager
def observing(model: nn.Module, kinds: tuple[ObserverKind, ...]) -> Iterator[dict[str, list[Observer]]]:
    """While open, the model's tensors are observed, each by an observer of every kind.

    Only "output" does without the additions: it looks at the outputs of a layer with weights.
    """
    observers: dict[str, list[Observer]] = {}
    handles = []
    of_adds = tuple(kind for kind in kinds if kind != "output")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_pre_hook(_watch_input(_made(observers, name, kinds))))
        if name.endswith(("bn3", "downsample.1")):
            # The two sides of a residual addition; where there is no downsampling, the other one is a relu's
            # output, which the next convolution's observer watches.
            handles.append(
                module.register_forward_hook(_watch_output(_made(observers, f"{name}.out", of_adds)))
            )
    try:
        yield observers
    finally:
        for handle in handles:
            handle.remove()


def _made(observers: dict[str, list[Observer]], name: str, kinds: tuple[ObserverKind, ...]) -> list[Observer]:
    observers[name] = [make_observer(kind, name, symmetric=False) for kind in kinds]
    return observers[name]


def _watch_input(observers: list[Observer]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, inputs: _observe(observers, inputs[0])


def _watch_output(observers: list[Observer]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    return lambda module, inputs, output: _observe(observers, output)


def _observe(observers: list[Observer], x: Tensor) -> None:
    # Rows of channels, which the observer of rows samples; to the others the order means nothing.
    rows = x.movedim(1, -1)
    for observer in observers:
        observer.observe(rows)


@torch.inference_mode()
def measure(
    count: int, images: int, size: int, kinds: tuple[ObserverKind, ...], progress: bool = False
) -> Memory:
    """Run the model unobserved, then observed, and choose every range."""
    model = resnet50().eval()
    start = time.perf_counter()
    for batch in batches(UNOBSERVED, images, size):
        model(batch)
    unobserved, alone = (time.perf_counter() - start) / UNOBSERVED, resident("VmHWM")
    along = []
    start = time.perf_counter()
    with observing(model, kinds) as observers, progress_bar("Calibrating", count, progress) as advance:
        for done, batch in enumerate(batches(count, images, size), 1):
            model(batch)
            advance(done)
            if done % max(1, count // NOTES) == 0:
                along.append(resident("VmRSS"))
    seconds = (time.perf_counter() - start) / count
    _choose(observers)
    total = sum(len(found) for found in observers.values())
    return Memory(
        batches=count,
        images=images,
        size=size,
        kinds=tuple(kinds),
        tensors=len(observers),
        observers=total,
        model=alone,
        peak=resident("VmHWM"),
        along=tuple(along),
        seconds_per_batch=seconds,
        seconds_unobserved=unobserved,
    )


def _choose(observers: dict[str, list[Observer]]) -> None:
    for name, found in observers.items():
        for observer in found:
            low, high = observer.range()
            if not low < high:
                raise RuntimeError(
                    f"The range of {name} is [{low}, {high}], which no calibration should give."
                )


def main(arguments: list[str] | None = None) -> Memory:
    """Parse the command line, measure, print and perhaps write a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration_memory", description=__doc__)
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1, help="in a batch")
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    found = measure(chosen.batches, chosen.images, chosen.size, tuple(chosen.kinds), sys.stderr.isatty())
    machine = this_machine(("torch",))
    print(found.lines(), machine.line(torch.get_num_threads()), sep="\n")
    if chosen.json is not None:
        record = {**asdict(found), "above_model": found.above_model, "machine": machine.record()}
        write_atomic(chosen.json, [json.dumps(record, indent=1).encode()])
    return found


if __name__ == "__main__":
    main()
