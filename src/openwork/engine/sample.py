"""Inputs that an engine accepts, for timing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.operators import row_of_step
from openwork.engine.ports import TensorInfo, inputs_of
from openwork.engine.program import Program
from openwork.engine.sizes import bind_shape, free_names
from openwork.engine.stored_tensors import Tensors


def id_limits(program: Program, tensors: Tensors) -> dict[str, int]:
    """For each input that indexes an embedding table, the number of rows of that table."""
    limits: dict[int, int] = {}
    for step in program.steps:
        row = row_of_step(step.op)
        for slot, index in zip(row.activations if row is not None else (), step.inputs, strict=False):
            if slot.indexes and index is not None:
                limits[index] = len(tensors[step.tensors[slot.indexes]])
    return {port.name: limits[port.value] for port in program.inputs if port.value in limits}


def sample_inputs(
    program: Program, limits: dict[str, int], sizes: Sequence[int], seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Random inputs of one shape: ids within their tables, other integers 1 (masks keep everything), normal
    floats.

    sizes : one per free dimension of the inputs, in order of appearance.
    Raises ValueError for another number of sizes or one below 1.
    """
    bound = bind_shape(free_names(program), sizes)
    rng = np.random.default_rng(seed)
    return {info.name: _sample(info, bound, limits.get(info.name), rng) for info in inputs_of(program)}


def _sample(
    info: TensorInfo, bound: dict[str, int], limit: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    shape = tuple(bound[dim] if isinstance(dim, str) else dim for dim in info.shape)
    if limit is not None:
        return rng.integers(0, limit, shape).astype(info.dtype)
    if info.dtype == np.object_:
        return np.full(shape, "", np.object_)
    if info.dtype.kind == "f":
        return rng.standard_normal(shape).astype(info.dtype)
    return np.ones(shape, info.dtype)
