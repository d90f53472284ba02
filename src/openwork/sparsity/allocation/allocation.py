"""A pattern for each layer: the least loss at a given time.

    allocation = allocate(sensitivity, times, target=0.004)
    pruner = Pruner(model, allocation.mapping)

Losses of layers are added up as if layers did not know of each other, which is how sensitivity is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from openwork.patterns.pattern import Pattern
from openwork.sparsity.allocation.knapsack import Choice, solve
from openwork.sparsity.allocation.sensitivity import Sensitivity

Times = Mapping[str, Mapping[str, float]]
"""Predicted seconds of each layer with each pattern (text), and "dense"."""

DENSE = "dense"


@dataclass(frozen=True)
class Allocated:
    """One layer's share. pattern: text, or "dense". seconds: predicted. increase: of the loss over dense."""

    layer: str
    pattern: str
    seconds: float
    increase: float


@dataclass(frozen=True)
class Allocation:
    """What each layer carries.

    rows: every timed layer, in the order of the times. target: seconds that were allowed. bound: no choice
    within the target has a smaller summed increase than this; equal to `increase` where that is proven to be
    the least. measured: the layers that had a choice.
    """

    rows: tuple[Allocated, ...]
    target: float
    bound: float
    measured: frozenset[str]

    @property
    def mapping(self) -> dict[str, str | None]:
        """The pattern of each layer that was measured, None for dense; `Pruner(model, mapping)` takes it."""
        chosen = [row for row in self.rows if row.layer in self.measured]
        return {row.layer: None if row.pattern == DENSE else row.pattern for row in chosen}

    @property
    def seconds(self) -> float:
        """The predicted time of all layers."""
        return math.fsum(row.seconds for row in self.rows)

    @property
    def increase(self) -> float:
        """The summed increase of the loss."""
        return math.fsum(row.increase for row in self.rows)

    def table(self) -> str:
        """Aligned lines of layer, pattern, predicted seconds and increase of the loss, and their sums."""
        cells = [("layer", "pattern", "seconds", "loss")]
        cells += [(r.layer, r.pattern, f"{r.seconds:.4g}", f"{r.increase:+.4g}") for r in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(4)]
        lines = [
            f"{a.ljust(widths[0])}  {b.ljust(widths[1])}  {c.rjust(widths[2])}  {d.rjust(widths[3])}"
            for a, b, c, d in cells
        ]
        return "\n".join([*lines, self._sums()])

    def _sums(self) -> str:
        gap = self.increase - self.bound
        proof = "the least possible" if gap <= 0 else f"at most {gap:.2g} above the least possible"
        allowed = f"{self.seconds:.4g} s of {self.target:.4g} s allowed"
        return f"{allowed}; the loss rises by {self.increase:.4g}, {proof}"


def allocate(sensitivity: Sensitivity, times: Times, target: float) -> Allocation:
    """The pattern of each layer, or dense, of the least summed increase of the loss within `target` seconds.

    Exact (a multiple-choice knapsack) unless the number of choices that may still be the best outgrows the
    memory that is given to it; then the result says how far from the least it may be (`Allocation.bound`).
    times: seconds of each layer for "dense" and for patterns, at least 0. Layers that were not measured stay
    dense and take their time; patterns that were not measured for a layer, or cost an infinite loss, are not
    chosen. target: seconds for all layers of `times` together. Raises ValueError if a measured layer has no
    times, a layer has no dense time, a number is negative or not finite, a pattern cannot be read, or the
    target cannot be met, saying what can.
    """
    read = {layer: _times_of(layer, seconds) for layer, seconds in times.items()}
    _check(sensitivity, read, target)
    options = {layer: _options(sensitivity, layer, seconds) for layer, seconds in read.items()}
    least = math.fsum(min(choice.cost for choice in choices.values()) for choices in options.values())
    if least > target * (1 + 1e-12):
        raise ValueError(
            f"With the patterns that were measured the layers take at least {least:.6g} s, more than the "
            f"target of {target:.6g} s. Allow more time, or measure and time faster patterns."
        )
    solution = solve([list(choices.values()) for choices in options.values()], target)
    rows = []
    for (layer, choices), index in zip(options.items(), solution.picks, strict=True):
        pattern, choice = list(choices.items())[index]
        rows.append(Allocated(layer, pattern, choice.cost, choice.loss))
    exact = math.fsum(row.increase for row in rows)
    return Allocation(
        tuple(rows), target, exact if solution.exact else solution.bound, frozenset(sensitivity.losses)
    )


def _times_of(layer: str, seconds: Mapping[str, float]) -> dict[str, float]:
    """The times of one layer by the patterns' own texts."""
    for pattern, value in seconds.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < math.inf:
            raise ValueError(
                f'The time of "{layer}" with "{pattern}" is a number of seconds of at least 0, but it is '
                f"{value!r}."
            )
    if DENSE not in seconds:
        raise ValueError(f'The times of "{layer}" lack "{DENSE}", the time that it takes unpruned.')
    return {text if text == DENSE else str(Pattern.parse(text)): float(s) for text, s in seconds.items()}


def _check(sensitivity: Sensitivity, times: Times, target: float) -> None:
    if not times or not math.isfinite(target) or target < 0:
        raise ValueError(
            f"Patterns are allocated to at least one layer within a finite time, but there are {len(times)} "
            f"layers and the target is {target} s."
        )
    missing = [layer for layer in sensitivity.losses if layer not in times]
    if missing:
        raise ValueError(
            f"The times lack {len(missing)} of the layers that were measured: {', '.join(missing[:5])}. Give "
            "each layer's time, dense and with each pattern."
        )


def _options(sensitivity: Sensitivity, layer: str, times: Mapping[str, float]) -> dict[str, Choice]:
    losses = sensitivity.losses.get(layer, {})
    choices = {DENSE: Choice(times[DENSE], 0.0)}
    for pattern, seconds in times.items():
        if pattern in losses and math.isfinite(losses[pattern]):
            choices[pattern] = Choice(seconds, sensitivity.increase(layer, pattern))
    return choices
