"""The shapes that tactics are timed at, and the rows that they mean for a layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from openwork.engine.operators.windows import axes
from openwork.engine.problem import Image
from openwork.engine.program import Program, Step
from openwork.engine.shapes import Shape
from openwork.support.numbers import LARGEST, whole_number

DEFAULT_SHAPES = ((1, 32), (1, 128), (16, 128))
"""Of a batch of texts, the first dimension and the second."""
PIXELS = 224
"""Of a free height or width of images, which many networks take no smaller."""


def free_names(program: Program) -> tuple[str, ...]:
    """The names of the inputs' free dimensions, in order of appearance."""
    return _names([program.values[port.value].shape for port in program.inputs])


def _names(inputs: Sequence[Shape]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dim for shape in inputs for dim in shape if isinstance(dim, str)))


def default_shapes(inputs: Sequence[Shape]) -> tuple[tuple[int, ...], ...]:
    """The default shapes, cut or filled up with 1 to the free dimensions of inputs of these shapes; a free
    height and width of images are `PIXELS`."""
    names, pixels = _names(inputs), _pixels(inputs)
    others = [name for name in names if name not in pixels]
    fitted = []
    for shape in DEFAULT_SHAPES:
        sizes = dict(zip(others, (*shape, *[1] * len(others)), strict=False))
        fitted.append(tuple(sizes.get(name, PIXELS) for name in names))
    return tuple(dict.fromkeys(fitted))


def _pixels(inputs: Sequence[Shape]) -> frozenset[str]:
    """The names of height and width: the last two of four axes, two names that stand nowhere else."""
    elsewhere = set(_names([shape if len(shape) != 4 else shape[:2] for shape in inputs]))
    found: set[str] = set()
    for shape in inputs:
        last = {dim for dim in shape[2:] if isinstance(dim, str)} if len(shape) == 4 else set()
        found |= last if len(last) == 2 and not last & elsewhere else set()
    return frozenset(found)


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
    given = [program.values[port.value].shape for port in program.inputs]
    chosen = default_shapes(given) if shapes is None else whole_shapes(shapes)
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

    A free dimension whose size is not known counts as 1; an image that is smaller than the window of its
    convolution as the smallest that it fits into.
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
        image = _fitting(step, images) if "kernel" in step.attributes else None
        found.setdefault(rows, Timed(rows, image))
    return [found[rows] for rows in sorted(found)]


def _fitting(step: Step, images: tuple[int, ...]) -> Image:
    """Batch, height and width of images, no smaller than the window with its pads."""
    least = [axis.reach - axis.before - axis.after for axis in axes(step.attributes)]
    height, width = (max(size, low, 1) for size, low in zip(images[1:3], least, strict=True))
    return images[0], height, width
