"""Cutting a program into parts that run one after another, each on one back end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from openwork.engine.program import FALLBACK, Named, Program, Step


@dataclass(frozen=True)
class Part:
    """Consecutive steps of one back end as a program of their own; a step that is a model of its own stands
    alone.

    backend : the back end's name. inputs, outputs : indices into the values of the whole program. alone :
    whether it is the whole program.
    """

    backend: str
    program: Program
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    alone: bool


def split(program: Program) -> list[Part]:
    """The parts of a program in the order in which they run."""
    return list(_parts(program))


def _parts(program: Program) -> Iterator[Part]:
    numbers = iter(range(len(program.steps)))

    def key(step: Step) -> tuple[str, int]:
        number = next(numbers)
        return step.backend, number if step.op == FALLBACK else -1

    position = 0
    for _, group in groupby(program.steps, key):
        steps = tuple(group)
        position += len(steps)
        yield _part(program, steps, program.steps[position:])


def _part(program: Program, steps: tuple[Step, ...], later: tuple[Step, ...]) -> Part:
    read = [i for step in steps for i in step.inputs if i is not None]
    made = [o for step in steps for o in step.outputs if o is not None]
    if steps[0].op != FALLBACK:
        wanted = {i for step in later for i in step.inputs} | {named.value for named in program.outputs}
        read = [index for index in dict.fromkeys(read) if index not in made]
        made = [index for index in made if index in wanted]
    # A model takes and gives exactly what its step says, in that order.
    own = _program(program, steps, read, made)
    return Part(steps[0].backend, own, tuple(read), tuple(made), len(steps) == len(program.steps))


def _program(program: Program, steps: tuple[Step, ...], inputs: list[int], outputs: list[int]) -> Program:
    named = (
        tuple(Named(str(index), index) for index in inputs),
        tuple(Named(str(index), index) for index in outputs),
    )
    return Program(*named, program.values, steps)
