"""Cutting a program at its fallback steps into parts that run one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from openwork.engine.program import FALLBACK, Named, Program, Step


@dataclass(frozen=True)
class Part:
    """Consecutive steps: one fallback step, or native ones as a program of their own.

    inputs, outputs : indices into the values of the whole program.
    """

    native: bool
    program: Program
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def split(program: Program) -> list[Part]:
    """The parts of a program in the order in which they run."""
    return list(_parts(program))


def _parts(program: Program) -> Iterator[Part]:
    numbers = iter(range(len(program.steps)))

    def key(step: Step) -> int:
        number = next(numbers)
        return number if step.op == FALLBACK else -1

    position = 0
    for kind, group in groupby(program.steps, key):
        steps = tuple(group)
        position += len(steps)
        yield _part(program, steps, program.steps[position:], native=kind == -1)


def _part(program: Program, steps: tuple[Step, ...], later: tuple[Step, ...], native: bool) -> Part:
    read = [i for step in steps for i in step.inputs if i is not None]
    made = [o for step in steps for o in step.outputs if o is not None]
    if not native:
        # ONNX Runtime's model takes and gives exactly what its step says, in that order.
        return Part(False, _program(program, steps, read, made), tuple(read), tuple(made))
    wanted = {i for step in later for i in step.inputs} | {named.value for named in program.outputs}
    inputs = [index for index in dict.fromkeys(read) if index not in made]
    outputs = [index for index in made if index in wanted]
    return Part(True, _program(program, steps, inputs, outputs), tuple(inputs), tuple(outputs))


def _program(program: Program, steps: tuple[Step, ...], inputs: list[int], outputs: list[int]) -> Program:
    named = (
        tuple(Named(str(index), index) for index in inputs),
        tuple(Named(str(index), index) for index in outputs),
    )
    return Program(*named, program.values, steps)
