"""The shapes that tactics are timed at, and the rows that they mean for a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from openwork.engine.problem import Image
from openwork.engine.program import Program, Step
from openwork.support.numbers import LARGEST, whole_number

DEFAULT_SHAPES = ((1, 32), (1, 128), (16, 128))


def free_names(program: Program) -> tuple[str, ...]:
    """The names of the inputs' free dimensions, in order of appearance."""
    dims = (dim for port in program.inputs for dim in program.values[port.value].shape)
    return tuple(dict.fromkeys(dim for dim in dims if isinstance(dim, str)))


def default_shapes(dimensions: int) -> tuple[tuple[int, ...], ...]:
    """The default shapes, cut or filled up with 1 to a number of free dimensions."""
    fitted = ((*shape, *[1] * dimensions)[:dimensions] for shape in DEFAULT_SHAPES)
    return tuple(dict.fromkeys(fitted))


def whole_shapes(shapes: object) -> tuple[tuple[int, ...], ...]:
    """The shapes as tuples of ints: lists, tuples or NumPy arrays of whole numbers.

    Raises TypeError for another kind of value, and ValueError for no shape at all or a size that is out of
    range.
    """
    given = _members(shapes, "The shapes are a list of shapes, like [[1, 32], [1, 128]]")
    if not given:
        raise ValueError("There are no shapes to time at; give at least one.")
    return tuple(whole_shape(shape) for shape in given)


def whole_shape(shape: object) -> tuple[int, ...]:
    """One shape as ints; raises as `whole_shapes` does."""
    sizes = _members(shape, "A shape is a list of sizes, like [1, 32]")
    return tuple(whole_number(size, "A size of a shape", low=-LARGEST) for size in sizes)


def _members(value: object, expected: str) -> list[object]:
    # A text or a mapping has members too, but they are no sizes.
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{expected}, but one is {value!r}, of the type {type(value).__name__}.")
    return list(value)


def bind_shape(names: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    """The size of each free dimension; raises ValueError for another number of sizes or one below 1, and what
    `whole_shape` raises."""
    shape = whole_shape(shape)
    if len(shape) != len(names) or any(size < 1 for size in shape):
        raise ValueError(
            f"A shape gives one size of at least 1 to each free dimension of the inputs "
            f"({', '.join(names) or 'there are none'}), but one is {'x'.join(map(str, shape)) or 'empty'}."
        )
    return dict(zip(names, shape, strict=True))


def free_sizes(program: Program, shapes: Sequence[Sequence[int]] | None) -> list[dict[str, int]]:
    """For each shape, or each default one, the size of every free dimension of the inputs.

    Raises ValueError for shapes that do not fit the inputs, or none, or that make a value too large.
    """
    names = free_names(program)
    chosen = default_shapes(len(names)) if shapes is None else whole_shapes(shapes)
    bound = [bind_shape(names, shape) for shape in chosen]
    for sizes in bound:
        _check_elements(program, sizes)
    return bound


def _check_elements(program: Program, sizes: Mapping[str, int]) -> None:
    for value in program.values:
        elements = math.prod(dim if isinstance(dim, int) else sizes.get(dim, 1) for dim in value.shape)
        if elements > LARGEST:
            given = "x".join(map(str, sizes.values())) or "this model"
            raise ValueError(
                f"A shape makes values up to {LARGEST} elements, but {given}"
                f" makes one of {elements}, [{', '.join(map(str, value.shape))}]; give a smaller one."
            )


class Timed(NamedTuple):
    """One size that a product is timed at: its rows (output pixels), and of a convolution the images."""

    rows: int
    image: Image | None


def timed_sizes(step: Step, program: Program, sizes: Iterable[dict[str, int]]) -> list[Timed]:
    """The distinct sizes that a product has at the given sizes of free dimensions, by increasing rows; of
    several with the same rows the first.

    A free dimension whose size is not known counts as 1.
    """
    found: dict[int, Timed] = {}
    for size in sizes:
        images, made = (
            tuple(
                dim if isinstance(dim, int) else size.get(dim, 1) for dim in program.values[index or 0].shape
            )
            for index in (step.inputs[0], step.outputs[0])
        )
        rows = math.prod(made[:-1])
        image = (images[0], images[1], images[2]) if "kernel" in step.attributes else None
        found.setdefault(rows, Timed(rows, image))
    return [found[rows] for rows in sorted(found)]
