"""What an engine takes and gives, and the checks of what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import Slot, pair, row_of_step
from openwork.engine.program import FALLBACK, Program, Step
from openwork.engine.shapes import Dim, Shape

Array = NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of an engine: its name, NumPy type, and shape (an int or a free dimension's name
    per axis). may_be_zero: the axes of an input that may be 0; native steps take few that are."""

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    may_be_zero: frozenset[int] = frozenset()

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a shape is one that the input or output may have."""
        return len(shape) == len(self.shape) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype} [{', '.join(map(str, self.shape))}]"


def inputs_of(program: Program) -> tuple[TensorInfo, ...]:
    """The inputs of a program, in order."""
    sizes = _never_zero(program)
    touched = {index for step in _native(program) for index in (*step.inputs, *step.outputs)}
    return tuple(
        TensorInfo(
            port.name,
            DTYPES[(value := program.values[port.value]).dtype],
            value.shape,
            frozenset(
                axis
                for axis, dim in enumerate(value.shape)
                if dim not in sizes and (isinstance(dim, str) or port.value not in touched)
            ),
        )
        for port in program.inputs
    )


def _native(program: Program) -> list[Step]:
    return [step for step in program.steps if step.op != FALLBACK]


def _never_zero(program: Program) -> set[Dim]:
    """The dimensions that a native step has where it takes no 0."""
    found: set[Dim] = set()
    for step in _native(program):
        row = row_of_step(step.op)
        sides = () if row is None else ((row.activations, step.inputs), (row.outputs, step.outputs))
        for slots, indices in sides:
            for slot, index in pair(slots, indices) or ():
                if index is not None:
                    found |= _taken(slot, program.values[index].shape)
    return found


def _taken(slot: Slot, shape: Shape) -> set[Dim]:
    """The dimensions of what stands in a slot that may not be 0."""
    if not slot.may_be_zero:
        return set(shape)
    return {dim for word, dim in zip(slot.shape, shape, strict=True) if word != slot.may_be_zero}


def outputs_of(program: Program) -> tuple[TensorInfo, ...]:
    """The outputs of a program, in order."""
    return tuple(
        TensorInfo(port.name, DTYPES[program.values[port.value].dtype], program.values[port.value].shape)
        for port in program.outputs
    )


def check_feed(inputs: tuple[TensorInfo, ...], feed: Mapping[str, Array]) -> list[Array]:
    """The fed arrays in the inputs' order, in C order and native byte order, copied only where they are not.

    Raises ValueError for a missing or unknown name, a wrong shape, an empty dimension, or dimensions of one
    name that differ, and TypeError for a wrong type; each names the input, what is expected and what came.
    """
    _check_names(inputs, feed)
    sizes: dict[str, tuple[int, str]] = {}
    return [_checked(info, feed[info.name], sizes) for info in inputs]


class FeedCheck:
    """`check_feed` for feeds that mostly look alike: one like the last, of arrays that need no copy, is not
    looked at again in detail."""

    def __init__(self, inputs: tuple[TensorInfo, ...]) -> None:
        self._inputs = inputs
        self._names = [info.name for info in inputs]
        self._last: list[object] | None = None

    def __call__(self, feed: Mapping[str, Array]) -> list[Array]:
        """As `check_feed` does."""
        if type(feed) is dict and len(feed) == len(self._names) and self._last is not None:
            given = [feed.get(name) for name in self._names]
            if _signature(given) == self._last:
                return given  # type: ignore[return-value]
        checked = check_feed(self._inputs, feed)
        same = all(feed[name] is array for name, array in zip(self._names, checked, strict=True))
        self._last = _signature(checked) if same else None
        return checked


def _signature(arrays: Sequence[Any]) -> list[object]:
    """What a check looks at, of plain arrays; None for anything else."""
    return [
        (array.dtype, array.shape, array.flags.c_contiguous) if type(array) is np.ndarray else None
        for array in arrays
    ]


def _check_names(inputs: tuple[TensorInfo, ...], feed: Mapping[str, Array]) -> None:
    if not isinstance(feed, Mapping):
        raise TypeError(
            f"An engine takes a mapping of names to arrays, but it was given {type(feed).__name__}."
        )
    names = {info.name for info in inputs}
    # The usual case says nothing, so it writes nothing.
    if feed.keys() == names:
        return
    expected = ", ".join(map(str, inputs))
    for info in inputs:
        if info.name not in feed:
            raise ValueError(f"The input '{info.name}' is missing; this engine takes {expected}.")
    unknown = sorted(set(map(str, feed)) - names)
    if unknown:
        raise ValueError(f"There is no input '{unknown[0]}'; this engine takes {expected}.")


def _checked(info: TensorInfo, array: Array, sizes: dict[str, tuple[int, str]]) -> Array:
    if not isinstance(array, (np.ndarray, np.generic)) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"The input {info} takes a plain NumPy array, but {type(array).__name__} came.")
    array = _texts(array) if info.dtype == np.object_ else array
    if array.dtype.newbyteorder("=") != info.dtype:
        raise TypeError(
            f"The input {info} takes {info.dtype}, but {array.dtype} came; convert it with "
            f".astype(numpy.{info.dtype})."
        )
    _check_shape(info, array, sizes)
    return np.asarray(array, dtype=info.dtype, order="C")  # a scalar stays one


def _texts(array: Array) -> Array:
    """NumPy's texts of a fixed length, as objects."""
    return array.astype(np.object_) if array.dtype.kind == "U" else array


def _check_shape(info: TensorInfo, array: Array, sizes: dict[str, tuple[int, str]]) -> None:
    came = f"but one of the shape {list(array.shape)} came"
    if array.ndim != len(info.shape):
        raise ValueError(f"The input {info} takes an array of {len(info.shape)} dimensions, {came}.")
    for axis, (dim, size) in enumerate(zip(info.shape, array.shape, strict=True)):
        if size == 0 and axis not in info.may_be_zero:
            raise ValueError(f"The input {info} takes an array that is not empty, {came}.")
        if isinstance(dim, int) and size != dim:
            raise ValueError(f"The input {info} takes {dim} in dimension {axis}, {came}.")
        if isinstance(dim, str):
            first, owner = sizes.setdefault(dim, (size, info.name))
            if size != first:
                raise ValueError(
                    f"The input {info} takes {first} in dimension {axis}, since '{dim}' is {first} in "
                    f"'{owner}', {came}."
                )


def disagreement(program: Program, values: Mapping[int, Array], read: Sequence[int]) -> str | None:
    """Which of the values that a part of a program reads has another size than the program says, in a
    sentence; None where all have theirs.

    values : what is known, by its number in the program. read : the numbers of what the part reads.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for index in dict.fromkeys((*(port.value for port in program.inputs), *read)):
        stated, who, array = program.values[index].shape, _origin(program, index), values[index]
        came = f"{who[0].upper()}{who[1:]} has the shape {list(array.shape)}"
        if len(stated) != array.ndim:
            return f"{came}, but the engine's program gives it {len(stated)} dimensions."
        for axis, (dim, size) in enumerate(zip(stated, array.shape, strict=True)):
            expected, other = (dim, "") if isinstance(dim, int) else sizes.setdefault(dim, (size, who))
            if size != expected:
                why = f", since '{dim}' is {expected} in {other}" if other else ""
                return (
                    f"{came}, but dimension {axis} must be {expected} there{why}; feed inputs of sizes that "
                    "agree, or export the model with names of their own for sizes that differ."
                )
    return None


def _origin(program: Program, index: int) -> str:
    """Where a value comes from, as messages name it."""
    name = next((port.name for port in program.inputs if port.value == index), None)
    if name is not None:
        return f"the input '{name}'"
    maker = next((step.name for step in program.steps if index in step.outputs), None)
    return f"what the step '{maker}' makes"


def check_made(step: str, info: TensorInfo, array: Array) -> None:
    """Refuse, with a ValueError, what a fallback step has made if the program says that it makes something
    else."""
    if array.dtype != info.dtype or not info.fits(array.shape):
        stated = f"{info.dtype} [{', '.join(map(str, info.shape))}]"
        raise ValueError(
            f"The step '{step}' makes {stated} by the engine's program, "
            f"but ONNX Runtime made {array.dtype} {list(array.shape)}; where the model states a shape that "
            "does not hold, export it with free dimensions there."
        )
