"""Inputs that an engine accepts, for timing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.operators import Slot, row_of_step
from openwork.engine.ports import TensorInfo, inputs_of
from openwork.engine.program import Program, Step
from openwork.engine.shapes import Shape
from openwork.engine.sizes import bind_shape, free_names
from openwork.engine.stored_tensors import Tensors


def id_limits(program: Program, tensors: Tensors) -> dict[str, int]:
    """For each input that indexes stored tables, the number of rows of the smallest one."""
    limits: dict[int, int] = {}
    seen_through = _views(program)
    for step, slot, index in _read(program):
        if slot.indexes:
            home, rows = seen_through.get(index, index), len(tensors[step.tensors[slot.indexes]])
            limits[home] = min(rows, limits.get(home, rows))
    return {port.name: limits[port.value] for port in program.inputs if port.value in limits}


def _views(program: Program) -> dict[int, int]:
    """What each value is that has only another shape."""
    found: dict[int, int] = {}
    for step in program.steps:
        row, read, made = row_of_step(step.op), step.inputs[:1], step.outputs[:1]
        if row is not None and row.view and read[0] is not None and made[0] is not None:
            found[made[0]] = found.get(read[0], read[0])
    return found


def _read(program: Program) -> Iterator[tuple[Step, Slot, int]]:
    """Each value that a native step reads in a slot that its operator's row names."""
    for step in program.steps:
        row = row_of_step(step.op)
        for slot, index in zip(row.activations if row is not None else (), step.inputs, strict=False):
            if index is not None:
                yield step, slot, index


def _cuts(program: Program) -> dict[str, tuple[int, bool]]:
    """For each input that says where parts of another value begin: that value, and whether the end of the
    last part stands there too."""
    found = {
        index: (value, bool(step.attributes.get("include_last")))
        for step, slot, index in _read(program)
        if slot.cuts and (value := _value_in(step, slot.cuts)) is not None
    }
    return {port.name: found[port.value] for port in program.inputs if port.value in found}


def _value_in(step: Step, slot: str) -> int | None:
    row = row_of_step(step.op)
    index = None if row is None else next(i for i, each in enumerate(row.activations) if each.name == slot)
    return None if index is None else step.inputs[index]


def sample_inputs(
    program: Program, limits: dict[str, int], sizes: Sequence[int], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Random inputs of one shape: ids within their tables, parts of one length, other integers 1 (masks keep
    everything), normal floats.

    sizes : one per free dimension of the inputs, in order of appearance.
    Raises ValueError for another number of sizes or one below 1.
    """
    bound = bind_shape(free_names(program), sizes)
    rng = np.random.default_rng(seed)
    made = {info.name: _sample(info, bound, limits.get(info.name), rng) for info in inputs_of(program)}
    for name, (index, last) in _cuts(program).items():
        whole = math.prod(_sized(program.values[index].shape, bound))
        made[name] = np.linspace(0, whole, made[name].size, endpoint=last).astype(np.int64)
    return made


def _sized(shape: Shape, bound: dict[str, int]) -> tuple[int, ...]:
    return tuple(bound[dim] if isinstance(dim, str) else dim for dim in shape)


def _sample(
    info: TensorInfo, bound: dict[str, int], limit: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    shape = _sized(info.shape, bound)
    if limit is not None:
        return rng.integers(0, limit, shape).astype(info.dtype)
    if info.dtype == np.object_:
        return np.full(shape, "", np.object_)
    if info.dtype.kind == "f":
        return rng.standard_normal(shape).astype(info.dtype)
    return np.ones(shape, info.dtype)
