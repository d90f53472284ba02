"""Deciding each linear layer of a program: its pattern, its tactics, and how its weights are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.packing import DENSE
from openwork.builder.eligibility import Eligibility, judge
from openwork.builder.tactics import Problem, Timer, choices, explain, outlook, settle
from openwork.engine.program import Program, Step
from openwork.engine.report import Bucket, Layer, Pick
from openwork.engine.sizes import rows_of
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import arrays, names
from openwork.support.progress import Advance

Tensors = dict[str, NDArray[Any]]


@dataclass
class Decided:
    """A program with its tactics, the tensors as stored, and what the report says about each layer."""

    program: Program
    tensors: Tensors
    layers: list[Layer] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)

    def notes(self, disturbed: int) -> tuple[str, ...]:
        """What the user must know beyond the layers.

        disturbed : how many timings something else disturbed.
        """
        notes = []
        if disturbed:
            notes.append(
                f"Something else was running during {_counted(disturbed, 'timing')}, so the picks may not "
                "be the best; build again on a quiet machine (what was disturbed is not kept)."
            )
        if self.pruned:
            notes.append(
                f"This build pruned {_counted(len(self.pruned), 'layer')} to 2:4 by magnitude, without "
                "any training: the engine shows the speed, and the model's accuracy is not kept."
            )
        floats = sum(step.op == "linear_float" for step in self.program.steps)
        if floats:
            notes.append(f"Not quantized, so dense in FP32: {_counted(floats, 'linear layer')}.")
        return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def decide(
    program: Program,
    tensors: Tensors,
    sparsity: str,
    sizes: Sequence[dict[str, int]],
    timer: Timer,
    advance: Advance,
) -> Decided:
    """Judge, time and store every linear step; other steps and tensors pass through.

    program, tensors : of `openwork.builder.lower`, all weights dense.
    sizes : the free dimensions' sizes to time at.
    """
    decided = Decided(program, dict(tensors))
    steps = []
    for number, step in enumerate(program.steps):
        advance(number / len(program.steps), step.name)
        steps.append(_linear(decided, step, sparsity, sizes, timer) if step.op == "linear" else step)
    decided.program = replace(program, steps=tuple(steps))
    return decided


def _linear(
    decided: Decided, step: Step, sparsity: str, sizes: Sequence[dict[str, int]], timer: Timer
) -> Step:
    weight = decided.tensors[step.tensors["weight"]]
    found = judge(weight, sparsity, outlook(timer.environment.isa))
    problem = _problem(step, found)
    rows = rows_of(step, decided.program, sizes)
    buckets = settle([timer.bucket(problem, found.weight, count) for count in rows])
    chosen, size = _store(decided.tensors, replace(step, tactics=choices(buckets)), found)
    if found.pruned:
        decided.pruned.append(step.name)
    decided.layers.append(_describe(chosen, problem, found, buckets, size))
    return chosen


def _problem(step: Step, found: Eligibility) -> Problem:
    n, k = found.weight.shape
    pattern = None if found.pattern is None else str(found.pattern)
    attributes = step.attributes
    return Problem(n, k, pattern, attributes["activation"], "y_scale" in attributes, found.work)


def _store(tensors: Tensors, step: Step, found: Eligibility) -> tuple[Step, int]:
    """Keep the weight compressed where a sparse tactic runs it or where that is smaller; gives its bytes."""
    name = step.tensors["weight"]
    sparse = any(choice.tactic != DENSE for choice in step.tactics)
    if found.pattern is None or not (sparse or found.stored.nbytes < found.weight.nbytes):
        tensors[name] = np.ascontiguousarray(found.weight)
        return step, found.weight.nbytes
    tensors |= arrays(name, found.stored)
    return replace(step, pattern=str(found.pattern)), found.stored.nbytes


def _describe(
    step: Step, problem: Problem, found: Eligibility, buckets: tuple[Bucket, ...], size: int
) -> Layer:
    return Layer(
        step.name,
        problem.n,
        problem.k,
        problem.activation,
        "u8" if problem.quantized else "f32",
        None if found.pattern is None else str(found.pattern),
        found.zeros,
        bool(found.work),
        found.reason,
        {form: round(work, 3) for form, work in found.work.items()},
        buckets,
        tuple(Pick(*choice) for choice in step.tactics),
        explain(buckets),
        found.weight.nbytes,
        size,
    )


def used_tensors(decided: Decided) -> Tensors:
    """The tensors that the program's steps name: dense weights that are stored compressed are gone."""
    used: dict[str, None] = {}
    for step in decided.program.steps:
        pattern = None if step.pattern is None else Pattern.parse(step.pattern)
        for slot, name in step.tensors.items():
            used |= dict.fromkeys(names(name, pattern if slot == "weight" else None))
    return {name: decided.tensors[name] for name in used}
