"""Deciding each product of a program: its pattern, its tactics, and how its weights are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.backend import Array, Backend, Outlook
from openwork.backends.registry import backend_named
from openwork.builder.eligibility import Eligibility, judge
from openwork.builder.shared_tensors import parts_of, share
from openwork.builder.tactics import Timer, choices, explain, settle
from openwork.engine.problem import Convolution, MatrixProduct, Problem, Sizes, Tactic
from openwork.engine.program import Program, Step
from openwork.engine.report import Bucket, Layer, Pick
from openwork.engine.sizes import timed_sizes
from openwork.engine.weights import as_matrix, from_matrix
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import arrays
from openwork.support.progress import Advance

Tensors = dict[str, NDArray[Any]]

ELEMENTS = {np.dtype(np.int8): "i8", np.dtype(np.float32): "f32"}


@dataclass(frozen=True)
class Request:
    """What products are decided by.

    sparsity : of `openwork.builder.eligibility.judge`. sizes : the free dimensions' sizes to time at. stated
    : by its tensor's name, what the model's metadata say that a weight keeps to.
    """

    sparsity: str
    sizes: Sequence[dict[str, int]]
    stated: Mapping[str, Pattern] = field(default_factory=dict)


@dataclass
class Decided:
    """A program with its tactics, the tensors as stored, and what the report says about each layer."""

    program: Program
    tensors: Tensors
    layers: list[Layer] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    untimed: int = 0

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
        if self.untimed:
            notes.append(f"Not quantized, so dense in FP32: {_counted(self.untimed, 'product')}.")
        return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def decide(program: Program, tensors: Tensors, request: Request, timer: Timer, advance: Advance) -> Decided:
    """Judge, time and store every product that its back end has tactics for; all else passes through.

    program, tensors : of `openwork.builder.lower`, all weights dense.
    """
    decided = Decided(program, dict(tensors))
    steps = []
    for number, step in enumerate(program.steps):
        advance(number / len(program.steps), step.name)
        backend = backend_named(step.backend)
        element = _element(decided, step) if step.tactics else None
        timed = element in backend.elements
        steps.append(_product(decided, step, request, timer, backend) if timed else step)
        decided.untimed += element == "f32" and not timed
    decided.program = share(replace(program, steps=tuple(steps)), decided.tensors)
    return decided


def _element(decided: Decided, step: Step) -> str:
    return ELEMENTS[decided.tensors[step.tensors["weight"]].dtype]


def _product(decided: Decided, step: Step, request: Request, timer: Timer, backend: Backend) -> Step:
    name = step.tensors["weight"]

    shape = decided.tensors[name].shape

    def outlook(matrix: Array, pattern: Pattern) -> Outlook | str:
        weight = from_matrix(matrix, shape)
        return backend.work_or_reason(problem_of(step, weight, pattern), weight, timer.target)

    found = judge(as_matrix(decided.tensors[name]), request.sparsity, outlook, request.stated.get(name))
    weight = from_matrix(found.weight, shape)
    problem = replace(problem_of(step, weight, found.pattern), work=found.work)
    problem = replace(problem, base=backend.base(problem, weight, timer.target))
    timed = timed_sizes(step, decided.program, request.sizes)
    buckets = settle([timer.bucket(backend, problem, weight, size) for size in timed])
    chosen, size = _store(decided.tensors, replace(step, tactics=choices(buckets)), found, weight)
    if found.pruned:
        decided.pruned.append(step.name)
    decided.layers.append(_describe(chosen, problem, found, buckets, size))
    return chosen


def problem_of(step: Step, weight: Array, pattern: Pattern | None) -> Problem:
    """The problem of a product with a weight [n, k], or of a convolution, that keeps to a pattern."""
    output = "u8" if "y_scale" in step.attributes else "f32"
    text = None if pattern is None else str(pattern)
    sizes = _sizes(step, weight)
    return Problem(sizes, ELEMENTS[weight.dtype], step.attributes["activation"], output, text)


def _sizes(step: Step, weight: Array) -> Sizes:
    if weight.ndim == 2:
        return MatrixProduct(*weight.shape)
    n, height, width, channels = weight.shape
    groups, strides, dilations, pads = (
        step.attributes[name] for name in ("groups", "strides", "dilations", "pads")
    )
    return Convolution(n, channels, (height, width), groups, tuple(strides), tuple(dilations), tuple(pads))


def _store(tensors: Tensors, step: Step, found: Eligibility, weight: Array) -> tuple[Step, int]:
    """Keep the weight compressed where a sparse tactic runs it or where that is smaller; gives its bytes."""
    name = step.tensors["weight"]
    sparse = any(Tactic.parse(choice.tactic) in found.work for choice in step.tactics)
    if found.pattern is None or not (sparse or found.stored.nbytes < weight.nbytes):
        tensors[name] = weight
        return step, weight.nbytes
    tensors |= arrays(name, found.stored)
    return replace(step, pattern=str(found.pattern)), found.stored.nbytes


def _describe(
    step: Step, problem: Problem, found: Eligibility, buckets: tuple[Bucket, ...], size: int
) -> Layer:
    return Layer(
        name=step.name,
        n=problem.sizes.n,
        k=problem.sizes.k,
        element=problem.element,
        activation=problem.activation,
        output=problem.output,
        pattern=problem.pattern,
        zeros=found.zeros,
        eligible=bool(found.work),
        reason=found.reason,
        work={str(tactic): round(work, 3) for tactic, work in found.work.items()},
        buckets=buckets,
        picks=tuple(Pick(*choice) for choice in step.tactics),
        why=explain(buckets),
        bytes_dense=found.weight.nbytes,
        bytes_stored=size,
    )


def used_tensors(decided: Decided) -> Tensors:
    """The tensors that the program's steps name: dense weights that are stored compressed are gone."""
    named = dict.fromkeys(
        name for step in decided.program.steps for slot in step.tensors for name in parts_of(step, slot)
    )
    return {name: decided.tensors[name] for name in named}
