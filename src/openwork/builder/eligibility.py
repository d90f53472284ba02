"""Whether a linear layer may run sparse on this machine, and the reason either way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.rivals import RIVAL, hopeful
from openwork.patterns.detection import detect
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.patterns.stored import Weight, store

SPARSITY_MODES = ("off", "on", "force")
FORCED = GroupPattern(2, 4)

Outlook = Mapping[str, float | str]
"""For each sparse form of this machine the work that it is expected to take for a weight, dense taking 1, or
why it does not hold the weight."""


@dataclass(frozen=True)
class Eligibility:
    """What was found in one layer's integer weights.

    weight : s8 [n, k], pruned where that was forced. stored : the same in the form that its pattern allows.
    work : expected work of the sparse tactics that may run it, dense taking 1; empty where it is not
    eligible. reason : a sentence.
    """

    weight: NDArray[np.int8]
    pattern: Pattern | None
    stored: Weight
    reason: str
    work: Mapping[str, float] = field(default_factory=dict)
    pruned: bool = False

    @property
    def zeros(self) -> float:
        """The fraction of weights that are zero."""
        return float(1.0 - np.count_nonzero(self.weight) / self.weight.size)


def judge(
    weight: NDArray[np.int8], sparsity: str, outlook: Callable[[NDArray[np.int8]], Outlook]
) -> Eligibility:
    """Find the pattern that a weight s8 [n, k] holds and what can run it.

    sparsity : "on"; "off" (nothing is eligible); "force" (a weight without a pattern is pruned to 2:4 by
        magnitude).
    outlook : of a weight that holds a pattern.
    """
    pattern = detect(weight)
    pruned = pattern is None and sparsity == "force"
    if pruned:
        pattern, weight = FORCED, prune(weight, FORCED)
    stored = store(weight, pattern)
    if pattern is None:
        return Eligibility(weight, None, stored, "The weights hold no pattern that a sparse kernel runs.")
    if sparsity == "off":
        return Eligibility(weight, pattern, stored, "Sparse kernels are switched off for this build.")
    found = outlook(weight)
    work = {form: value for form, value in found.items() if not isinstance(value, str)}
    work = {form: work[form] for form in hopeful(work)}
    held = f"The weights hold {pattern}" + (", pruned by this build" if pruned else "")
    return Eligibility(weight, pattern, stored, f"{held}{'.' if work else _refusal(found)}", work, pruned)


def _refusal(outlook: Outlook) -> str:
    """Why no sparse form is worth timing, to follow what the weights hold."""
    work = {value: form for form, value in outlook.items() if not isinstance(value, str)}
    if work:
        return (
            f", but {work[min(work)]}, the sparse kernel with the least work here, is expected to take "
            f"{min(work):.2f} times as much as dense; up to {RIVAL} times is timed."
        )
    listed = " ".join(f"{form}: {value}" for form, value in outlook.items())
    return f", but no kernel here runs it: {listed or 'this instruction set has none.'}"


def prune(weight: NDArray[np.int8], pattern: GroupPattern) -> NDArray[np.int8]:
    """Keep the largest magnitudes of each group, the first of equal ones; the last group counts as padded
    with zeros."""
    n, k = weight.shape
    padded = np.pad(weight, ((0, 0), (0, -k % pattern.group))).reshape(n, -1, pattern.group)
    order = np.argsort(-np.abs(padded.astype(np.int16)), axis=2, kind="stable")
    np.put_along_axis(padded, order[:, :, pattern.kept :], 0, axis=2)
    return np.ascontiguousarray(padded.reshape(n, -1)[:, :k])
