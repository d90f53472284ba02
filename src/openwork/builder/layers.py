"""Deciding each product of a program: its pattern, its tactics, and how its weights are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from openwork.backends.backend import Array, Backend, Outlook
from openwork.backends.registry import backend_named
from openwork.backends.target import Target
from openwork.builder.eligibility import Eligibility, judge
from openwork.builder.shared_tensors import parts_of, share
from openwork.builder.tactics import Timer, choices, explain, of_element, reduced_is_faster, settle
from openwork.engine.dtypes import ELEMENTS
from openwork.engine.problem import Convolution, MatrixProduct, Problem, Sizes, Tactic
from openwork.engine.program import Program, Step
from openwork.engine.report import Bucket, Layer, Pick
from openwork.engine.sizes import timed_sizes
from openwork.engine.weights import as_matrix, from_matrix
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import arrays
from openwork.support import bf16
from openwork.support.progress import Advance

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Request:
    """What products are decided by.

    sparsity : of `openwork.builder.eligibility.judge`. sizes : the free dimensions' sizes to time at. stated
    : by its tensor's name, what the model's metadata say that a weight keeps to. reduced : whether products
    of floats may run in BF16 where that is faster.
    """

    sparsity: str
    sizes: Sequence[dict[str, int]]
    stated: Mapping[str, Pattern] = field(default_factory=dict)
    reduced: bool = False


@dataclass
class Decided:
    """A program with its tactics, the tensors as stored, and what the report says about each layer."""

    program: Program
    tensors: Tensors
    layers: list[Layer] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)
    untimed: int = 0
    reduced: bool = False

    @property
    def bf16(self) -> int:
        """The number of layers that run in BF16."""
        return sum(layer.element == "bf16" for layer in self.layers)

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
        floats = [layer.element for layer in self.layers if layer.element != "i8"]
        if self.reduced and floats:
            rest = len(floats) - self.bf16
            said = f"BF16 runs {self.bf16} of {_counted(len(floats), 'float layer')}, as asked"
            notes.append(f"{said}; it makes {_counted(rest, 'other')} no faster." if rest else f"{said}.")
        if self.untimed:
            notes.append(f"Not quantized, so dense in FP32: {_counted(self.untimed, 'product')}.")
        return tuple(notes)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def decide(program: Program, tensors: Tensors, request: Request, timer: Timer, advance: Advance) -> Decided:
    """Judge, time and store every product that its back end has tactics for; all else passes through.

    program, tensors : of `openwork.builder.lower`, all weights dense.
    """
    decided = Decided(program, dict(tensors), reduced=request.reduced)
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
    judging = _Judging(step, request, backend, timer.target)
    exact = judging.candidate(decided.tensors[name], request.sparsity)
    reduced = judging.reduced(exact) if request.reduced else None
    timed = timed_sizes(step, decided.program, request.sizes)
    also = None if reduced is None else reduced.problem
    buckets = [timer.bucket(backend, exact.problem, exact.weight, size, also) for size in timed]
    faster = reduced is not None and reduced_is_faster(buckets)
    kept = reduced if reduced is not None and faster else exact
    if reduced is not None:
        buckets = [of_element(bucket, kept.problem.element) for bucket in buckets]
    settled = settle(buckets)
    choice = replace(step, tactics=choices(settled))
    if kept is reduced:
        choice = replace(choice, tensors={**step.tensors, "weight": _reduced_name(decided.tensors, name)})
    chosen, size = _store(decided.tensors, choice, kept.found, kept.weight)
    if exact.found.pruned:
        decided.pruned.append(step.name)
    decided.layers.append(_describe(chosen, kept.problem, kept.found, settled, size))
    return chosen


def _reduced_name(tensors: Tensors, name: str) -> str:
    """What a weight in BF16 is called: another step may need it as it was, and the model may have a tensor of
    the first name."""
    reduced = f"{name}.bf16"
    while reduced in tensors and ELEMENTS.get(tensors[reduced].dtype) != "bf16":
        reduced += ".bf16"
    return reduced


@dataclass(frozen=True)
class _Candidate:
    """A product with its weight of one element type."""

    problem: Problem
    found: Eligibility
    weight: Array


@dataclass(frozen=True)
class _Judging:
    """Finds what can run the weight of a step."""

    step: Step
    request: Request
    backend: Backend
    target: Target

    def candidate(self, dense: Array, sparsity: str) -> _Candidate:
        """With a weight of this type."""

        def outlook(matrix: Array, pattern: Pattern) -> Outlook | str:
            weight = from_matrix(matrix, dense.shape)
            return self.backend.work_or_reason(problem_of(self.step, weight, pattern), weight, self.target)

        stated = self.request.stated.get(self.step.tensors["weight"])
        found = judge(as_matrix(dense), sparsity, outlook, stated)
        weight = from_matrix(found.weight, dense.shape)
        problem = replace(problem_of(self.step, weight, found.pattern), work=found.work)
        problem = replace(problem, bases=self.backend.bases(problem, weight, self.target))
        return _Candidate(problem, found, weight)

    def reduced(self, exact: _Candidate) -> _Candidate | None:
        """In BF16; None where it is not f32, BF16 does not hold a weight, or another form would have to stand
        for the base, which only makes more work."""
        if exact.problem.element != "f32" or "bf16" not in self.backend.elements:
            return None
        weight = bf16.weights(exact.weight)
        if weight is None:
            return None
        # What was pruned to a pattern holds it now.
        sparsity = "off" if self.request.sparsity == "off" else "on"
        made = self.candidate(weight, sparsity)
        return made if made.problem.base.form == exact.problem.base.form else None


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
