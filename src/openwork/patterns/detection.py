"""Finding the pattern that a weight's zeros follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern

if TYPE_CHECKING:
    import numpy as np

GROUP_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
"""The M of the N:M that `detect` looks for; N may be anything below. What prunes and what packs works with
powers of two, and a longer group's positions take more than a byte."""

SHARED = (1, 2, 4, 16, 32, 64, 128)
"""The V of the N:M@V that it looks for."""

BLOCKS = ((4, 16), (1, 16), (4, 4), (1, 4), (4, 1), (1, 2), (2, 1), (1, 1))
"""The blocks (outputs, inputs) that `detect` tries, in its order: the largest first, then the widest."""

LEAST_ZERO = 0.5
"""The smallest fraction of zero blocks that is called a pattern."""

MOST_KEPT = 0.9
"""A weight of which more is not zero is dense: zeros that INT8 leaves in a dense weight follow nothing."""

EXPLAINED = 0.75
"""A pattern explains the zeros where at least this fraction of the positions that it keeps is not zero.

A pruned weight has some zeros more than its pattern where small weights are rounded to integers.
"""

EVIDENCE = 12.0
"""How much likelier the zeros must be under an N:M than under any blocks and under none, as the logarithm of
the ratio. Zeros that follow nothing have a fullest group too, and so satisfy some N:M, but of 6,000 such
weights one reached 8.5 and the next 5.2."""


def detect(weight: np.ndarray, stated: Pattern | None = None) -> Pattern | None:
    """The pattern that the zeros of weight [out, in] follow, or None.

    stated : the pattern that the model's metadata names for it.

    The first of:

    1. `stated`, where the weight satisfies it.
    2. The N:M or N:M@V under which the zeros are the likeliest (`GROUP_SIZES`, `SHARED`), where it explains
    them
       (`EXPLAINED`) and is likelier by far than blocks and than no structure (`EVIDENCE`). N is the most that
       a group keeps, or the next power of two. The likeliest is the finest statement that is true: zeros of
       2:4 satisfy 4:8 too, and 2:4@2 satisfies 2:4, but the coarser one makes many other zeros as likely. Of
       equals the widest sharing, then the shortest group.
    3. The largest block of `BLOCKS` of which at least half are zero and that explains the zeros, with the
       fraction found in two decimals; 1x1, unstructured, explains any.

    A weight of zeros alone keeps to the sparsest of all, 1:M@V of the largest M and V. What is wider than the
    weight is not tried: every weight would satisfy it by its padding.
    Raises ValueError for another number of dimensions or an empty weight.
    """
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(
            f"A weight must be a non-empty matrix [out, in], but its shape is {list(weight.shape)}."
        )
    mask = weight != 0
    kept = int(mask.sum())
    if stated is not None and stated.holds(mask):
        return stated
    if not kept:
        return _of_zeros(*mask.shape)
    if kept > MOST_KEPT * mask.size:
        return None
    return _groups(mask, kept) or _blocks(mask, kept)


def _of_zeros(rows: int, columns: int) -> GroupPattern | None:
    groups = [group for group in GROUP_SIZES if group <= columns]
    shared = [share for share in SHARED if share <= rows]
    return GroupPattern(1, groups[-1], shared[-1]) if groups else None


@dataclass(frozen=True)
class _Found:
    """An N:M@V that a weight satisfies, and how much likelier it makes the zeros than no structure does,
    within the columns that its groups fill."""

    pattern: GroupPattern
    gain: float
    columns: int


def _groups(mask: np.ndarray, kept: int) -> GroupPattern | None:
    found = [found for found in _satisfied(mask, kept) if found.gain >= EVIDENCE]
    if not found:
        return None
    best = max(found, key=lambda f: (f.gain, f.pattern.shared, -f.pattern.group))
    inside = mask[:, : best.columns]
    rivals = max(_block_likelihood(inside, *block) for block in BLOCKS)
    return best.pattern if best.gain >= rivals - _plain_likelihood(inside) + EVIDENCE else None


def _satisfied(mask: np.ndarray, kept: int) -> Iterator[_Found]:
    """The N:M@V that explain the zeros of a weight and that it satisfies."""
    columns = mask.shape[1]
    for shared, union in _unions(mask):
        # No N:M@V keeps less than what is live, and sharing more widely leaves more of it.
        if kept < EXPLAINED * float(union.mean()) * mask.size:
            return
        for group, counts in _counts(union):
            most = int(counts.max())
            if most < group and kept >= EXPLAINED * most / group * mask.size:
                yield _fitted(shared, group, counts, mask[:, : columns // group * group])


def _fitted(shared: int, group: int, counts: np.ndarray, inside: np.ndarray) -> _Found:
    """The N of an M and V: the most that a group keeps, or the next power of two where the zeros allow it.

    Of 64 weights that are kept hardly ever all are other than zero once they are integers.
    """
    whole = counts[:, : inside.shape[1] // group]
    most = int(counts.max())
    round_up = 1 << (most - 1).bit_length()
    found = [
        _Found(pattern, _group_likelihood(pattern, whole, inside), inside.shape[1])
        for pattern in (GroupPattern(kept, group, shared) for kept in (most, round_up) if kept < group)
    ]
    return found[-1] if found[-1].gain >= found[0].gain - EVIDENCE else found[0]


def _unions(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """For each V that fits, what any of V adjacent rows keeps; rows are filled up with zeros."""
    union, height = mask, 1
    for shared in SHARED:
        if shared > len(mask):
            return
        while height < shared:
            union, height = _pairs_of_rows(union), 2 * height
        yield shared, union


def _pairs_of_rows(mask: np.ndarray) -> np.ndarray:
    pairs = mask[::2].copy()
    pairs[: len(mask) // 2] |= mask[1::2]
    return pairs


def _counts(union: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """For each M that fits, how many of each M adjacent columns are live; columns are filled up with
    zeros."""
    import numpy as np

    counts, width = union.astype(np.uint16), 1
    for group in GROUP_SIZES:
        if group > union.shape[1]:
            return
        while width < group:
            pairs = counts[:, ::2].copy()
            pairs[:, : counts.shape[1] // 2] += counts[:, 1::2]
            counts, width = pairs, 2 * width
        yield group, counts


def _group_likelihood(pattern: GroupPattern, counts: np.ndarray, mask: np.ndarray) -> float:
    """How much likelier the zeros are under N:M@V than under none, as a logarithm.

    Each group keeps any N of its M columns with equal chance, and each of the N * V weights in them is zero
    all the same with one chance. Of a group with `live` columns, C(M - live, N - live) of the C(M, N) choices
    are possible.
    """
    import numpy as np

    live = np.bincount(counts.reshape(-1), minlength=pattern.group + 1)
    chosen = float(live @ _log_choices(pattern.kept, pattern.group))
    positions = pattern.kept * len(mask) * counts.shape[1]
    return chosen + _log_chance(int(mask.sum()), positions) - _plain_likelihood(mask)


@cache
def _log_choices(kept: int, group: int) -> np.ndarray:
    """log(C(group - live, kept - live) / C(group, kept)) for each number of live columns up to `group`."""
    import numpy as np

    factorial = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, group + 1)))))
    live = np.arange(kept + 1)
    possible = factorial[group - live] - factorial[kept - live] - factorial[group - kept]
    every = factorial[group] - factorial[kept] - factorial[group - kept]
    return np.concatenate((possible - every, np.zeros(group - kept)))


def _log_chance(some: int, every: int) -> float:
    """The logarithm of the likelihood of `some` of `every` trials at the chance that makes it largest."""
    import math

    parts = (some, every - some)
    return sum(part * math.log(part / every) for part in parts if part > 0)


def _plain_likelihood(mask: np.ndarray) -> float:
    return _log_chance(int(mask.sum()), mask.size)


def _block_likelihood(mask: np.ndarray, rows: int, columns: int) -> float:
    """The likelihood of the zeros where blocks live with one chance and their weights with another."""
    if rows > mask.shape[0] or columns > mask.shape[1]:
        return -float("inf")
    live = BlockPattern(rows, columns, LEAST_ZERO).live(mask)
    alive = int(live.sum())
    inside = min(alive * rows * columns, mask.size)
    return _log_chance(alive, live.size) + _log_chance(int(mask.sum()), inside)


def _blocks(mask: np.ndarray, kept: int) -> BlockPattern | None:
    if kept > (1 - LEAST_ZERO) * mask.size:
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
    return bool(live.mean() <= 1 - LEAST_ZERO) and kept >= EXPLAINED * inside


def _stated(pattern: BlockPattern, live: np.ndarray) -> BlockPattern:
    """The pattern with the fraction that `live` shows, in whole hundredths and below 1.

    Rounded down, or up where the pattern holds all the same: "4x1:0.8" of 3072 blocks asks for 2457.
    """
    zero = live.size - int(live.sum())
    holds = (100 * (zero + 1) - 1) // live.size
    return replace(pattern, fraction=min(holds, -(-100 * zero // live.size), 99) / 100)
