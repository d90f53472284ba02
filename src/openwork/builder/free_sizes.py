"""The sizes of free dimensions that no input has: what a step makes that is a model of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openwork.backends.backend import Made, Tensors
from openwork.backends.registry import backend_named
from openwork.engine.made_shapes import made_shapes
from openwork.engine.program import FALLBACK, Program, Step
from openwork.engine.shapes import Shape

Sizes = dict[str, int]


@dataclass(frozen=True)
class Known:
    """For each timed shape the size of every free dimension that is known, and what could not be found."""

    sizes: tuple[Sizes, ...]
    notes: tuple[str, ...]


def known_sizes(program: Program, tensors: Tensors, inputs: Sequence[Sizes]) -> Known:
    """Complete the sizes of the inputs' free dimensions by those of what such steps make, as far as a step
    that is timed stands behind them.

    A size that is not found is left out, and counts as 1 where layers are timed; a note says so.
    """
    notes: dict[str, None] = {}
    return Known(tuple(_completed(program, tensors, sizes, notes) for sizes in inputs), tuple(notes))


def _completed(program: Program, tensors: Tensors, given: Sizes, notes: dict[str, None]) -> Sizes:
    sizes = dict(given)
    for step in program.steps[: _last_timed(program)]:
        open_names = _open_names(program, step, sizes)
        if not open_names:
            continue
        made = _made(program, step, tensors, sizes)
        if isinstance(made, Made):
            _bind(program, step, made, sizes)
        if step.op == FALLBACK:
            notes |= dict.fromkeys(_notes(step, open_names, made))
    return sizes


def _last_timed(program: Program) -> int:
    """The number of steps that stand before the last one which is timed."""
    return max((number for number, step in enumerate(program.steps) if step.tactics), default=0)


def _open_names(program: Program, step: Step, sizes: Mapping[str, int]) -> list[str]:
    dims = (dim for index in step.outputs if index is not None for dim in program.values[index].shape)
    return list(dict.fromkeys(dim for dim in dims if isinstance(dim, str) and dim not in sizes))


def _made(program: Program, step: Step, tensors: Tensors, sizes: Mapping[str, int]) -> Made | str:
    shapes = [_sized(program.values[index].shape, sizes) for index in step.inputs if index is not None]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return "its inputs' sizes are not known either"
    if step.op != FALLBACK:
        return Made(_inferred(step, known), True)
    return backend_named(step.backend).made_shapes(step, program, tensors, known)


def _inferred(step: Step, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The shapes of a native step's outputs; -1 for what follows from its tensors."""
    made = made_shapes(step, shapes).values()
    return tuple(tuple(d if isinstance(d, int) else -1 for d in shape or ()) for shape in made)


def _sized(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...] | None:
    found = [dim if isinstance(dim, int) else sizes.get(dim) for dim in shape]
    known = tuple(dim for dim in found if dim is not None)
    return known if len(known) == len(found) else None


def _bind(program: Program, step: Step, made: Made, sizes: Sizes) -> None:
    outputs = [program.values[index].shape for index in step.outputs if index is not None]
    for shape, found in zip(outputs, made.shapes, strict=True):
        for dim, size in zip(shape, found, strict=False):
            if isinstance(dim, str) and size > 0:
                sizes.setdefault(dim, size)


def _notes(step: Step, names: Sequence[str], made: Made | str) -> list[str]:
    listed = ", ".join(names)
    if isinstance(made, str):
        return [
            f"The sizes of {listed}, which {step.name} makes, could not be found ({made}), "
            "so the layers behind it are taken as if they were 1."
        ]
    if made.exact:
        return []
    return [
        f"The sizes of {listed}, which {step.name} makes, are not known from its inputs' sizes alone; "
        "the layers behind it are taken at those that it made of random inputs."
    ]
