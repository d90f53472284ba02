"""Random weights that hold a pattern, at random places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openwork import Pattern
from openwork.sparsity import BlockPattern, GroupPattern

from .shapes import Shape

Mask = NDArray[np.bool_]
DENSE = "dense"


def mask(rng: np.random.Generator, shape: Shape, pattern: str) -> Mask:
    """Where a weight of the shape is kept: over the input channels of each tap, as the pattern reads.

    Gives bool [n, taps, channels of a tap]. Raises ValueError for a text that is no pattern.
    """
    n, taps, channels = shape.n, shape.taps, shape.k // shape.taps
    if pattern == DENSE:
        return np.ones((n, taps, channels), np.bool_)
    parsed = Pattern.parse(pattern)
    if isinstance(parsed, GroupPattern):
        return _groups(rng, (n, taps, channels), parsed)
    assert isinstance(parsed, BlockPattern)
    return _blocks(rng, (n, taps, channels), parsed)


def refusal(shape: Shape, pattern: str) -> str | None:
    """Why the pattern means nothing on this shape, or None."""
    if pattern == DENSE:
        return None
    parsed = Pattern.parse(pattern)
    assert isinstance(parsed, GroupPattern | BlockPattern)
    channels = shape.k // shape.taps
    wanted = parsed.group if isinstance(parsed, GroupPattern) else parsed.columns
    if channels < wanted:
        return f"{pattern} reaches over {wanted} input channels, and a tap has {channels}."
    return None


def _groups(rng: np.random.Generator, size: tuple[int, int, int], pattern: GroupPattern) -> Mask:
    """N of every M: of the positions inside the weight, where its edge cuts a group short."""
    n, taps, channels = size
    groups, sharing = -(-channels // pattern.group), -(-n // pattern.shared)
    draw = rng.random((sharing, taps, groups * pattern.group))
    draw[:, :, channels:] = 2
    rank = draw.reshape(sharing, taps, groups, pattern.group).argsort(-1).argsort(-1)
    kept = (rank < pattern.kept).reshape(sharing, taps, -1)[:, :, :channels]
    return np.repeat(kept, pattern.shared, axis=0)[:n]


def _blocks(rng: np.random.Generator, size: tuple[int, int, int], pattern: BlockPattern) -> Mask:
    n, taps, channels = size
    down, across = -(-n // pattern.rows), -(-channels // pattern.columns)
    count = down * taps * across
    alive = np.ones(count, np.bool_)
    alive[rng.permutation(count)[: pattern.zero_blocks(count)]] = False
    tall = np.repeat(alive.reshape(down, taps, across), pattern.rows, axis=0)[:n]
    return np.repeat(tall, pattern.columns, axis=2)[:, :, :channels]
