"""Sizes from which a part of a graph may compute something else: the numbers that it holds.

`min(positions, 19)`, a window of 64 keys, chunks of 512: what a part does with small sizes says nothing of
larger ones, but what changes it is a number in the graph. So whoever finds a function by computing it tries
sizes beyond each number, and some that a few numbers may add up to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx_ir as ir

from openwork.graph.model import attributes, constant

LEAST, MOST = 4, 4096
"""Smaller numbers are met by the small sizes; larger ones take too long to try."""
MOST_NUMBERS = 8
SMALL_ARRAY = 64
TABLES = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
"""Operators that take a part of what they read, of which there is only so much."""
ALWAYS = 131
"""A size that is tried whatever the numbers are."""


def thresholds(nodes: Iterable[ir.Node], fixed: Collection[int] = ()) -> tuple[int, ...]:
    """The numbers of some nodes between `LEAST` and `MOST`, the largest `MOST_NUMBERS` of them, in order.

    fixed: numbers that are known to be something else.
    """
    found = {number for node in nodes for number in _numbers(node) if LEAST < number <= MOST}
    return tuple(sorted(found - set(fixed))[-MOST_NUMBERS:])


def beyond(numbers: Iterable[int]) -> list[int]:
    """Sizes to try: two beyond each number, where |i - j| <= number ends too, and one beyond their sums."""
    numbers = list(numbers)
    largest = {2 * max(numbers) + 3} if numbers else set[int]()
    return sorted({number + 2 for number in numbers} | largest | {ALWAYS})


def _numbers(node: ir.Node) -> Iterator[int]:
    """The whole numbers, rounded up, in what a node reads and in its attributes."""
    for value in node.inputs:
        array = None if value is None else constant(value)
        if array is None:
            continue
        if node.op_type in TABLES:
            yield from array.shape
        if array.size <= SMALL_ARRAY and array.dtype.kind in "iuf":
            yield from _whole(array)
    for held in attributes(node).values():
        if isinstance(held, int | float | list | tuple):
            yield from _whole(np.asarray(held).reshape(-1))


def _whole(array: np.ndarray) -> Iterator[int]:
    if array.dtype.kind not in "iuf":
        return
    size = np.abs(array.astype(np.float64).reshape(-1))
    yield from (int(np.ceil(x)) for x in size[np.isfinite(size)] if x <= MOST)
