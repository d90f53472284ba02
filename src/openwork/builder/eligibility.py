"""Whether a linear layer may run sparse on this machine, and the reason either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openwork.sparsity import GroupPattern, Pattern, detect
from openwork.sparsity.compressed import Compressed, compress

SPARSITY_MODES = ("off", "on", "force")
FORCED = GroupPattern(2, 4)

Fits = Callable[[Compressed], tuple[tuple[str, ...], str]]
"""Given compressed weights: the sparse forms of this machine that hold them, and why the others do not."""


@dataclass(frozen=True)
class Eligibility:
    """What was found in one layer's integer weights.

    weight : s8 [n, k], pruned where that was forced. compressed : its compressed form where it holds an N:M
    pattern.
    forms : the sparse tactics that may run it; none where it is not eligible. reason : a sentence.
    """

    weight: NDArray[np.int8]
    pattern: Pattern | None
    compressed: Compressed | None
    forms: tuple[str, ...]
    reason: str
    pruned: bool = False

    @property
    def zeros(self) -> float:
        """The fraction of weights that are zero."""
        return float(1.0 - np.count_nonzero(self.weight) / self.weight.size)


def judge(weight: NDArray[np.int8], sparsity: str, fits: Fits) -> Eligibility:
    """Find the pattern that a weight s8 [n, k] holds and what can run it.

    sparsity : "on"; "off" (nothing is eligible); "force" (a weight without a pattern is pruned to 2:4 by
        magnitude).
    """
    pattern = detect(weight)
    pruned = pattern is None and sparsity == "force"
    if pruned:
        pattern, weight = FORCED, prune(weight, FORCED)
    if not isinstance(pattern, GroupPattern):
        return Eligibility(weight, pattern, None, (), _without(pattern))
    compressed = compress(weight, pattern.kept, pattern.group)
    if sparsity == "off":
        return Eligibility(weight, pattern, compressed, (), "Sparse kernels are switched off for this build.")
    forms, refusal = fits(compressed)
    held = f"The weights hold {pattern}" + (", pruned by this build" if pruned else "")
    reason = f"{held}." if forms else f"{held}, but no kernel here runs it: {refusal}"
    return Eligibility(weight, pattern, compressed, forms, reason, pruned)


def prune(weight: NDArray[np.int8], pattern: GroupPattern) -> NDArray[np.int8]:
    """Keep the largest magnitudes of each group, the first of equal ones; the last group counts as padded
    with zeros."""
    n, k = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -k % pattern.group))).reshape(n, -1, pattern.group)
    order = np.argsort(-np.abs(padded.astype(np.int16)), axis=2, kind="stable")
    np.put_along_axis(padded, order[:, :, pattern.kept :], 0, axis=2)
    return np.ascontiguousarray(padded.reshape(n, -1)[:, :k])


def _without(pattern: Pattern | None) -> str:
    if pattern is None:
        return "The weights hold no pattern that a sparse kernel runs."
    return f"The weights hold {pattern}, and only N:M patterns have sparse kernels."
