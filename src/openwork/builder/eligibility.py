"""Whether a product may run sparse on this machine, and the reason either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from openwork.backends.backend import Array, Outlook
from openwork.engine.problem import RIVAL, Work
from openwork.patterns.detection import LEAST_ZERO, MOST_KEPT, detect
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.patterns.stored import Weight, store

SPARSITY_MODES = ("off", "on", "force")
FORCED = GroupPattern(2, 4)


@dataclass(frozen=True)
class Eligibility:
    """What was found in one layer's integer weights.

    weight : s8 or f32 [n, k], pruned where that was forced. stored : the same in the form that its pattern
    allows.
    work : expected work of the sparse tactics that may run it, dense taking 1; empty where it is not
    eligible. reason : a sentence.
    """

    weight: Array
    pattern: Pattern | None
    stored: Weight
    reason: str
    work: Work = field(default_factory=dict)
    pruned: bool = False

    @property
    def zeros(self) -> float:
        """The fraction of weights that are zero."""
        return float(1.0 - np.count_nonzero(self.weight) / self.weight.size)


def judge(
    weight: Array,
    sparsity: str,
    outlook: Callable[[Array, Pattern], Outlook | str],
    stated: Pattern | None = None,
) -> Eligibility:
    """Find the pattern that the matrix of a weight, s8 or f32 [n, k], holds and what can run it.

    sparsity : "on"; "off" (nothing is eligible); "force" (a weight without a pattern is pruned to 2:4 by
        magnitude).
    outlook : of a weight and the pattern that it holds.
    stated : the pattern that the model's metadata name.
    """
    pattern = detect(weight, stated)
    # A group that is filled up with zeros, as the three channels of a picture are, gains nothing.
    pruned = pattern is None and sparsity == "force" and weight.shape[1] >= FORCED.group
    if pruned:
        pattern, weight = FORCED, prune(weight, FORCED)
    stored = store(weight, pattern)
    if pattern is None:
        return Eligibility(weight, None, stored, _no_pattern(weight))
    if sparsity == "off":
        return Eligibility(weight, pattern, stored, "Sparse kernels are switched off for this build.")
    held = f"The weights hold {pattern}" + (", pruned by this build" if pruned else "")
    if stated is not None and pattern != stated:
        held += f" and not {stated}, which the model's metadata name"
    found = outlook(weight, pattern)
    if isinstance(found, str):
        return Eligibility(weight, pattern, stored, f"{held}. {found}", pruned=pruned)
    work = {tactic: value for tactic, value in found.items() if not isinstance(value, str)}
    hopeful = {tactic: value for tactic, value in work.items() if value <= RIVAL}
    reason = f"{held}{'.' if hopeful else _refusal(found)}"
    return Eligibility(weight, pattern, stored, reason, hopeful, pruned)


def _no_pattern(weight: Array) -> str:
    """Why zeros, where there are more than rounding leaves, are no pattern."""
    found = "The weights hold no pattern that a sparse kernel runs"
    if np.count_nonzero(weight) > MOST_KEPT * weight.size:
        return f"{found}."
    return (
        f"{found}: their zeros follow no N:M, and zeros anywhere are taken for a pattern from "
        f"{LEAST_ZERO:.0%} of the weights on."
    )


def _refusal(outlook: Outlook) -> str:
    """Why no sparse form is worth timing, to follow what the weights hold."""
    work = {value: tactic for tactic, value in outlook.items() if not isinstance(value, str)}
    if work:
        return (
            f", but {work[min(work)]}, the sparse kernel with the least work here, is expected to take "
            f"{min(work):.2f} times as much as dense; up to {RIVAL} times is timed."
        )
    listed = " ".join(f"{tactic}: {value}" for tactic, value in outlook.items())
    return f", but no kernel here runs it: {listed or 'this instruction set has none.'}"


def prune(weight: Array, pattern: GroupPattern) -> Array:
    """Keep the largest magnitudes of each group, the first of equal ones; the last group counts as padded
    with zeros."""
    n, k = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -k % pattern.group))).reshape(n, -1, pattern.group)
    order = np.argsort(-np.abs(padded.astype(np.float32)), axis=2, kind="stable")
    np.put_along_axis(padded, order[:, :, pattern.kept :], 0, axis=2)
    return np.ascontiguousarray(padded.reshape(n, -1)[:, :k])
