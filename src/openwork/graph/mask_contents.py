"""What a mask input is fed to find what it means: ones and zeros, and values around numbers of its cone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, constant
from openwork.graph.probe import Cone

ALONE = 16
MOST_NUMBERS = 6
LARGEST = 2**31
"""Numbers of a cone beyond it are the low values of masks, not what an element is compared with."""

INTEGERS = frozenset(
    (
        *(ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8),
        *(ir.DataType.UINT32, ir.DataType.UINT16, ir.DataType.UINT8),
    )
)
FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16))


Contents = Callable[[int, int, bool], Iterator[Array]]
"""Masks [batch, length] to try, for a batch, a length, and whether they are beyond a threshold."""


def numbers_of(found: Cone, source: ir.Value) -> list[float]:
    """Numbers that an element may be compared with: 0, 1, and those of the cone."""
    if source.dtype == ir.DataType.BOOL:
        return [0.0]
    arrays = [constant(value) for node in found.nodes for value in node.inputs if value is not None]
    held = {float(a.reshape(())) for a in arrays if a is not None and a.size == 1 and a.dtype.kind in "iuf"}
    if source.dtype in INTEGERS:
        held = {float(end(x)) for x in held if np.isfinite(x) for end in (np.floor, np.ceil)}
    near = sorted((x for x in held - {0.0, 1.0} if abs(x) < LARGEST), key=abs)
    return [0.0, 1.0, *near[:MOST_NUMBERS]]


def values_of(source: ir.Value, numbers: Sequence[float]) -> Array:
    """What an element may be: around each number, and for floats also what is no number."""
    dtype = np.dtype(source.dtype.numpy()) if source.dtype is not None else np.dtype(np.int64)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            exact = np.array(numbers, dtype)
            around = [exact + dtype.type(step) for step in (-1, -0.5, 0, 0.5, 1)]
            near = [np.nextafter(exact, dtype.type(to)) for to in (-np.inf, np.inf)]
        return np.unique(np.array([*np.ravel(around), *np.ravel(near), np.inf, -np.inf, np.nan], dtype))
    limits = np.iinfo(dtype)
    whole = {int(np.floor(x)) + step for x in numbers for step in (-1, 0, 1, 2)}
    return np.array(sorted(x for x in whole if limits.min <= x <= limits.max), dtype)


def binary(batch: int, length: int, large: bool) -> Iterator[Array]:
    """Masks of ones and zeros: all ones, all zeros, each position alone (of up to 16), and random ones."""
    generator = np.random.default_rng(batch * 1000 + length)
    yield np.ones((batch, length), np.int64)
    if not large:
        yield np.zeros((batch, length), np.int64)
        if batch * length <= ALONE:
            yield from np.eye(batch * length, dtype=np.int64).reshape(-1, batch, length)
    for _ in range(1 if large else 4):
        yield generator.integers(0, 2, (batch, length))


def others(batch: int, length: int, large: bool, values: Array) -> Iterator[Array]:
    """Masks of any values: random ones, and each value alone where that is small."""
    generator = np.random.default_rng(batch * 1000 + length)
    for _ in range(1 if large else 2):
        yield values[generator.integers(0, len(values), (batch, length))]
    if not large and batch * length <= ALONE // 2:
        yield from (np.full((batch, length), value) for value in values)


def every(values: Array, batch: int, length: int, large: bool) -> Iterator[Array]:
    """Masks of ones and zeros, then of any values."""
    yield from binary(batch, length, large)
    yield from others(batch, length, large, values)
