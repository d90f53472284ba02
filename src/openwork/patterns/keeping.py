"""Whether a stored weight keeps to its pattern, asked of its bitmap where that spares looking at each weight.

An engine's weights are asked each time it is loaded, so the answer must cost little beside decoding them, and
it may take no memory for groups that a lying file makes longer than the weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.patterns.bitmap import Bitmap
from openwork.patterns.compressed import Compressed
from openwork.patterns.pattern import GroupPattern, Pattern, Violation
from openwork.patterns.stored import Weight

Used = NDArray[np.bool_]

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
_MOST = {size: _BITS.reshape(256, -1, size).sum(axis=2, dtype=np.uint8).max(axis=1) for size in (2, 4, 8)}
"""For each byte the most bits that are set in one of its groups of this size."""


def violation(stored: Weight, weight: NDArray[Any], pattern: Pattern) -> Violation | None:
    """The first place where a weight [n, k], as it is stored and decoded, breaks its pattern; None where it
    keeps to it."""
    if not isinstance(pattern, GroupPattern):
        return next(iter(pattern.violations(weight, limit=1)), None)
    found = None if _rows_surely_keep(stored, weight, pattern) else _in_rows(weight != 0, pattern)
    return found or (_in_columns(weight != 0, pattern) if pattern.transposable else None)


def _rows_surely_keep(stored: Weight, weight: NDArray[Any], pattern: GroupPattern) -> bool:
    """Whether no look at single weights is needed: by the form itself, or by the bits of whole bytes."""
    if pattern.shared == 1 and isinstance(stored, Compressed):
        return True
    if pattern.group not in _MOST and pattern.group % 8:
        return False
    bits = stored.bits if isinstance(stored, Bitmap) else np.packbits(weight != 0, axis=1, bitorder="little")
    if pattern.shared > 1:
        bits = np.bitwise_or.reduceat(bits, np.arange(0, len(bits), pattern.shared), axis=0)
    counts = np.take(_MOST[min(pattern.group, 8)], bits)
    if pattern.group > 8:
        first = np.arange(0, counts.shape[1], pattern.group // 8)
        counts = np.add.reduceat(counts, first, axis=1, dtype=np.uint32)
    return int(counts.max()) <= pattern.kept


def _in_rows(used: Used, pattern: GroupPattern) -> Violation | None:
    if pattern.shared > 1:
        used = np.logical_or.reduceat(used, np.arange(0, len(used), pattern.shared), axis=0)
    place = _overfull(used.T, pattern)
    if place is None:
        return None
    group, row, kept = place
    return Violation(str(pattern), row * pattern.shared, group, kept, pattern.kept)


def _in_columns(used: Used, pattern: GroupPattern) -> Violation | None:
    place = _overfull(used, pattern)
    if place is None:
        return None
    group, column, kept = place
    return Violation(str(pattern), group * pattern.group, group, kept, pattern.kept, column=column)


def _overfull(used: Used, pattern: GroupPattern) -> tuple[int, int, int] | None:
    """Of the groups along the first axis the first with too many non-zeros: its number, its place along the
    second axis, and how many."""
    high = -(-len(used) // pattern.group)
    counts = np.zeros((high, used.shape[1]), np.uint8 if pattern.group < 256 else np.uint32)
    # Whole rows are added, each group's first, second, ...: a sum along the groups takes five times as long.
    for place in range(min(pattern.group, len(used))):
        rows = used[place :: pattern.group]
        counts[: len(rows)] += rows
    if int(counts.max()) <= pattern.kept:
        return None
    group, column = (int(i) for i in np.argwhere(counts > pattern.kept)[0])
    return group, column, int(counts[group, column])
