"""The shapes that tactics are timed at, and the rows that they mean for a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from openwork.engine.program import Program, Step

DEFAULT_SHAPES = ((1, 32), (1, 128), (16, 128))


def free_names(program: Program) -> tuple[str, ...]:
    """The names of the inputs' free dimensions, in order of appearance."""
    dims = (dim for port in program.inputs for dim in program.values[port.value].shape)
    return tuple(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))


def default_shapes(dimensions: int) -> tuple[tuple[int, ...], ...]:
    """The default shapes, cut or filled up with 1 to a number of free dimensions."""
    fitted = ((*shape, *[1] * dimensions)[:dimensions] for shape in DEFAULT_SHAPES)
    return tuple(dict.fromkeys(fitted))


def bind_shape(names: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    """The size of each free dimension; raises ValueError for another number of sizes or one below 1."""
    if len(shape) != len(names) or any(size < 1 for size in shape):
        raise ValueError(
            f"A shape gives one size of at least 1 to each free dimension of the inputs "
            f"({', '.join(names) or 'there are none'}), but one is {'x'.join(map(str, shape)) or 'empty'}."
        )
    return dict(zip(names, shape, strict=True))


def free_sizes(program: Program, shapes: Sequence[Sequence[int]] | None) -> list[dict[str, int]]:
    """For each shape, or each default one, the size of every free dimension of the inputs.

    Raises ValueError for shapes that do not fit the inputs, or none.
    """
    names = free_names(program)
    if shapes is not None and not shapes:
        raise ValueError("There are no shapes to time at; give at least one.")
    return [bind_shape(names, shape) for shape in (default_shapes(len(names)) if shapes is None else shapes)]


def rows_of(step: Step, program: Program, sizes: Iterable[dict[str, int]]) -> list[int]:
    """The distinct numbers of rows that a linear step has at the given sizes, in increasing order.

    A free dimension that only a fallback step knows counts as 1.
    """
    shape = program.values[step.inputs[0] or 0].shape[:-1]
    return sorted(
        {math.prod(dim if isinstance(dim, int) else size.get(dim, 1) for dim in shape) for size in sizes}
    )
