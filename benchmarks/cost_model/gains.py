"""What a fit is worth to who chooses a pattern: gains of each pattern's best form, found and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from openwork.prediction.cost import seconds
from openwork.prediction.machines import Machine

from . import fit
from .measure import DENSE, Time


def with_gains(machine: Machine, times: Sequence[Time]) -> Machine:
    """The machine with the error of its gains."""
    found = _gains(times, [time.seconds for time in times])
    predicted = _gains(times, [seconds(machine, t.count, t.rows, t.sizes.n) for t in times])
    return replace(machine, gains=fit.error(predicted, found))


def _gains(times: Sequence[Time], taken: Sequence[float]) -> list[float]:
    best: dict[tuple[str, str, int], float] = {}
    for time, value in zip(times, taken, strict=True):
        key = (time.pattern, str(time.sizes), time.rows)
        best[key] = min(value, best.get(key, value))
    return [
        best[DENSE, size, rows] / value for (pattern, size, rows), value in best.items() if pattern != DENSE
    ]
