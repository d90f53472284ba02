"""Random masks that hold a pattern, where a layer's own weights do not exist yet or do not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern

if TYPE_CHECKING:
    import numpy as np

Size = tuple[int, int, int]
"""Output channels, kernel taps and input channels of a tap."""


def refusal(channels: int, pattern: Pattern | None, outputs: int | None = None) -> str | None:
    """Why a pattern means nothing on taps of so many input channels, or on so many output channels where they
    are given, or None; no pattern is dense."""
    if pattern is None:
        return None
    shared = pattern.shared if isinstance(pattern, GroupPattern) else getattr(pattern, "rows", 1)
    if outputs is not None and outputs < shared:
        return f"{pattern} treats {shared} output channels alike, and the layer has {outputs}."
    wanted = pattern.group if isinstance(pattern, GroupPattern) else getattr(pattern, "columns", 1)
    if channels < wanted:
        return f"{pattern} reaches over {wanted} input channels, and a tap has {channels}."
    return None


def drawn_mask(rng: np.random.Generator, size: Size, pattern: Pattern | None) -> np.ndarray:
    """Where a weight is kept, bool [n, taps, channels]: at random, over the input channels of each tap as the
    pattern reads; everywhere without a pattern. Of a transposable pattern only the rows hold it."""
    import numpy as np

    if isinstance(pattern, GroupPattern):
        return _groups(rng, size, pattern)
    if isinstance(pattern, BlockPattern):
        return _blocks(rng, size, pattern)
    return np.ones(size, np.bool_)


def _groups(rng: np.random.Generator, size: Size, pattern: GroupPattern) -> np.ndarray:
    """N of every M: of the positions inside the weight, where its edge cuts a group short."""
    import numpy as np

    n, taps, channels = size
    groups, sharing = -(-channels // pattern.group), -(-n // pattern.shared)
    draw = rng.random((sharing, taps, groups * pattern.group))
    draw[:, :, channels:] = 2
    rank = draw.reshape(sharing, taps, groups, pattern.group).argsort(-1).argsort(-1)
    kept = (rank < pattern.kept).reshape(sharing, taps, -1)[:, :, :channels]
    return np.repeat(kept, pattern.shared, axis=0)[:n]


def _blocks(rng: np.random.Generator, size: Size, pattern: BlockPattern) -> np.ndarray:
    import numpy as np

    n, taps, channels = size
    down, across = -(-n // pattern.rows), -(-channels // pattern.columns)
    count = down * taps * across
    alive = np.ones(count, np.bool_)
    alive[rng.permutation(count)[: pattern.zero_blocks(count)]] = False
    tall = np.repeat(alive.reshape(down, taps, across), pattern.rows, axis=0)[:n]
    return np.repeat(tall, pattern.columns, axis=2)[:, :, :channels]
