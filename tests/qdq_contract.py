"""Running Q/DQ graphs as engines beside ONNX Runtime, in as many processes as there are cores.

An engine is made as `openwork.build` makes it, but for the timing of tactics: each product runs dense. It is
written, loaded with all of the loader's checks, and run.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx

from engine_files import REPORT
from graph_models import runtime
from openwork.builder.lower import lower
from openwork.engine.engine_file import write_engine
from openwork.graph import read, reduce
from openwork.runtime.engine import Engine, load
from openwork.support.cores import physical_cores
from qdq_bounds import Bounds, bounds_of, judge
from qdq_drawn import draw

GRAPHS_PER_MODEL = 4
WIDE = 1e-3
"""Bounds of a float that are wider than this part of max(1, |y|) say that a tie lies behind it."""


def engine_of(model: onnx.ModelProto, path: Path, rounding: str = "exact") -> Engine:
    """The model as a loaded engine of one thread, with dense products."""
    lowered = lower(reduce(read(model), rounding=rounding)[0])
    write_engine(path, lowered.program, REPORT.to_json(), lowered.tensors)
    return load(path, threads=1)


@dataclass
class Outcome:
    """What some models gave: elements of integer and of float outputs, those that a tie leaves open, faults.

    steps: of the programs, by operator.
    """

    integers: int = 0
    open_integers: int = 0
    floats: int = 0
    open_floats: int = 0
    faults: list[str] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)

    def add(self, other: Outcome) -> None:
        self.integers += other.integers
        self.open_integers += other.open_integers
        self.floats += other.floats
        self.open_floats += other.open_floats
        self.faults += other.faults
        self.steps += other.steps

    def note(self, where: str, bounds: Bounds, found: np.ndarray) -> None:
        """One output of one runner."""
        verdict = judge(bounds, found)
        if verdict.outside:
            self.faults.append(
                f"{where}: {verdict.outside} of {verdict.elements} elements lie outside their bounds"
            )
        if found.dtype == np.float32:
            self.floats += verdict.elements
            wide = bounds.high - bounds.low > WIDE * np.maximum(1.0, bounds.largest)
            self.open_floats += int(wide.sum())
        else:
            self.integers += verdict.elements
            self.open_integers += verdict.uncertain


def check(seed: int, rounding: str = "exact") -> Outcome:
    """Draw the model of this seed, run it in ONNX Runtime and as an engine, compare both with the bounds."""
    drawn, outcome = draw(seed, GRAPHS_PER_MODEL), Outcome()
    bounds = bounds_of(drawn.model, drawn.feeds, drawn.fixed)
    right = runtime(drawn.model, drawn.feeds)
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_of(drawn.model, Path(folder) / "m.engine", rounding)
        found = engine.run(drawn.feeds)
    outcome.steps.update(step.op for step in engine._program.steps)
    for name, expected in right.items():
        if found[name].dtype != expected.dtype:
            outcome.faults.append(
                f"seed {seed}, {name}: {found[name].dtype} in the place of {expected.dtype}"
            )
        for runner, array in (("ONNX Runtime", expected), ("the engine", found[name])):
            outcome.note(f"seed {seed}, {name} of {runner}", bounds[name], array)
    return outcome


def check_all(seeds: Iterable[int]) -> Outcome:
    """`check` of all seeds, in processes of their own: a forked one would inherit ONNX Runtime's threads."""
    total, workers = Outcome(), min(physical_cores(), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(check, seeds, chunksize=8):
            total.add(outcome)
    return total
