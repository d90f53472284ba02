"""Sizes of free dimensions under the names of one program, and under those of another of the same inputs.

A program may know that two names of the model mean one size, where another program of the same model, which
leaves more to ONNX Runtime, does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from openwork.engine.program import Program
from openwork.engine.shapes import Dim, Partial
from openwork.engine.sizes import whole_shape

Sizes = dict[str, int]


def translated(sizes: Mapping[str, int], program: Program, other: Program) -> Sizes:
    """The sizes of a program's free dimensions as those of another program of the same inputs."""
    return {
        name: dim if isinstance(dim, int) else sizes[dim]
        for name, dim in _paired([other.values[port.value].shape for port in other.inputs], program)
    }


def fitted(shape: Sequence[int], inputs: Sequence[Partial], program: Program) -> tuple[int, ...]:
    """A shape with a size for each name of the model's inputs as one with a size for each of the program's.

    inputs : the shapes of the model's inputs. Any other shape is given back as it is.
    Raises ValueError where names that are one in the program have different sizes.
    """
    given = whole_shape(shape)
    names = tuple(dict.fromkeys(dim for dims in inputs for dim in dims if isinstance(dim, str)))
    pairs = dict(_paired(inputs, program))
    kept = tuple(dict.fromkeys(dim for dim in pairs.values() if isinstance(dim, str)))
    if len(given) != len(names) or len(kept) == len(names):
        return given
    sizes: dict[Dim, int] = {}
    for name, size in zip(names, given, strict=True):
        if sizes.setdefault(pairs[name], size) != size:
            raise ValueError(
                f"The dimensions '{name}' and '{pairs[name]}' are one size in this model, but a shape gives "
                f"{size} and {sizes[pairs[name]]}."
            )
    return tuple(sizes[name] for name in kept)


def _paired(shapes: Sequence[Partial], program: Program) -> Iterator[tuple[str, Dim]]:
    """The free dimensions of some inputs, with what each is in a program."""
    for shape, port in zip(shapes, program.inputs, strict=True):
        for name, dim in zip(shape, program.values[port.value].shape, strict=True):
            if isinstance(name, str):
                yield name, dim
