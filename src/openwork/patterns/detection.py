"""Finding the pattern that a weight's zeros follow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern

if TYPE_CHECKING:
    import numpy as np

_GROUPS = tuple(
    GroupPattern(kept, group, shared)
    for kept, group in ((4, 64), (4, 32), (1, 4), (4, 16), (2, 4), (4, 8))
    for shared in (4, 2, 1)
)
GROUPS = tuple(sorted(_GROUPS, key=lambda pattern: (pattern.density, -pattern.shared, pattern.group)))
"""The N:M patterns that `detect` tries, in its order: fewest weights first, then the widest sharing, then the
shortest group.
"""

BLOCKS = ((4, 16), (1, 16), (4, 4), (1, 4), (4, 1), (1, 2), (2, 1), (1, 1))
"""The blocks (outputs, inputs) that `detect` tries, in its order: the largest first, then the widest."""

LEAST_ZERO = 0.5
"""The smallest fraction of zero blocks that is called a pattern."""

EXPLAINED = 0.75
"""A pattern explains the zeros where at least this fraction of the positions that it keeps is not zero.

A pruned weight has some zeros more than its pattern where small weights are rounded to integers.
"""


def detect(weight: np.ndarray) -> Pattern | None:
    """The pattern that the zeros of weight [out, in] follow, or None.

    The first of: the sparsest N:M pattern of `GROUPS` that the weight satisfies and that explains its zeros
    (`EXPLAINED`); the largest block of `BLOCKS` of which at least half are zero and that explains them, with
    the fraction found in two decimals (1x1, unstructured, explains any zeros); the sparsest
    N:M pattern that the weight satisfies, which leaves weights that are zero altogether. What is wider than
    the weight is not tried: every weight would satisfy it by its padding.
    Raises ValueError for another number of dimensions or an empty weight.
    """
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(
            f"A weight must be a non-empty matrix [out, in], but its shape is {list(weight.shape)}."
        )
    mask = weight != 0
    kept = int(mask.sum())
    groups = _groups(mask, kept)
    if groups is not None and _explains(groups.density * mask.size, kept):
        return groups
    return _blocks(mask, kept) or groups


def _groups(mask: np.ndarray, kept: int) -> GroupPattern | None:
    rows, columns = mask.shape
    fitting = (p for p in GROUPS if p.group <= columns and p.shared <= rows)
    # Most layers are dense, and their number of zeros alone says so.
    possible = (p for p in fitting if kept <= rows * -(-columns // p.group) * p.kept)
    return next((pattern for pattern in possible if pattern.holds(mask)), None)


def _blocks(mask: np.ndarray, kept: int) -> BlockPattern | None:
    if not 0 < kept <= (1 - LEAST_ZERO) * mask.size:
        return None
    rows, columns = mask.shape
    fitting = (
        BlockPattern(*block, LEAST_ZERO) for block in BLOCKS if block[0] <= rows and block[1] <= columns
    )
    found = ((pattern, pattern.live(mask)) for pattern in fitting)
    return next(
        (_stated(pattern, live) for pattern, live in found if _follows(pattern, live, mask, kept)), None
    )


def _follows(pattern: BlockPattern, live: np.ndarray, mask: np.ndarray, kept: int) -> bool:
    """Whether at least half of the blocks are zero and the others are mostly full."""
    inside = min(int(live.sum()) * pattern.rows * pattern.columns, mask.size)
    return bool(live.mean() <= 1 - LEAST_ZERO) and _explains(inside, kept)


def _stated(pattern: BlockPattern, live: np.ndarray) -> BlockPattern:
    """The pattern with the fraction that `live` shows, in whole hundredths and below 1.

    Rounded down, or up where the pattern holds all the same: "4x1:0.8" of 3072 blocks asks for 2457.
    """
    zero = live.size - int(live.sum())
    holds = (100 * (zero + 1) - 1) // live.size
    return replace(pattern, fraction=min(holds, -(-100 * zero // live.size), 99) / 100)


def _explains(positions: float, kept: int) -> bool:
    return kept >= EXPLAINED * positions
