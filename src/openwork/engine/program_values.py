"""The values of a program from an untrusted file: their types and shapes, and that something makes each."""

from __future__ import annotations

import math
from typing import Any

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import row_of_step
from openwork.engine.program import FALLBACK, MOST_AXES, Named, Step, Value
from openwork.engine.shapes import Dim
from openwork.support.fields import EngineFileError, Field

MOST_ELEMENTS = 2**31 - 1


def check_count(members: dict[str, Field]) -> None:
    """Refuse a value that nothing makes, before a million of them are read one by one.

    As many indices as there are values make all of them: each is looked at again where it is read.
    """
    named = [entry.get("value") for entry in _entries(members["inputs"].value) if isinstance(entry, dict)]
    for step in _entries(members["steps"].value):
        named += _entries(step.get("outputs")) if isinstance(step, dict) else []
    most, values = len({index for index in named if isinstance(index, int)}), members["values"]
    if (found := len(_entries(values.value))) > most:
        raise EngineFileError(
            f"{values.file}: field '{values.path}': expected at most {most} values, one for each input and "
            f"each output of a step, found {found}."
        )


def _entries(array: object) -> list[Any]:
    """Of an array; what is none is refused where it is read."""
    return array if isinstance(array, list) else []


def read_value(item: Field) -> Value:
    """One value: its type and its shape."""
    members = item.object(frozenset({"dtype", "shape"}))
    dtype = members["dtype"].choice(tuple(DTYPES))
    shape = tuple(_read_dim(dim) for dim in members["shape"].items())
    if len(shape) > MOST_AXES:
        members["shape"].refuse(f"at most {MOST_AXES} dimensions")
    if math.prod(dim for dim in shape if isinstance(dim, int)) > MOST_ELEMENTS:
        members["shape"].refuse(f"at most {MOST_ELEMENTS} elements")
    return Value(dtype, shape)


def _read_dim(item: Field) -> Dim:
    if isinstance(item.value, str):
        return item.text(longest=256)
    return item.integer(0, MOST_ELEMENTS)


def check_free_dimensions(
    array: Field, values: tuple[Value, ...], inputs: tuple[Named, ...], steps: list[Step]
) -> None:
    """Every free dimension must be readable from an input, or from what a step makes whose sizes follow from
    its own attributes or data: a window's, a border's, a fallback step's."""
    readable = {named.value for named in inputs}
    readable |= {index for step in steps if _gives_sizes(step) for index in step.outputs if index is not None}
    names = {dim for index in readable for dim in values[index].shape if isinstance(dim, str)}
    for value, item in zip(values, array.items(), strict=True):
        for dim in value.shape:
            if isinstance(dim, str) and dim not in names:
                item.refuse("free dimensions that an input has, or that a step gives a size")


def _gives_sizes(step: Step) -> bool:
    row = row_of_step(step.op)
    return step.op == FALLBACK or (row is not None and row.derive is not None)
