"""What a fit is worth to who chooses a pattern: gains of each pattern's best form, found and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import geometric_mean

from openwork.prediction.cost import seconds
from openwork.prediction.machines import Machine

from . import fit
from .measure import DENSE, Time

Key = tuple[str, str, int]
# From so many rows on arithmetic is the limit, and not the bytes of the weights.
MANY_ROWS = 128


def with_gains(machine: Machine, times: Sequence[Time]) -> Machine:
    """The machine with the error of its gains."""
    found = _by_key(times, [time.seconds for time in times])
    predicted = _by_key(times, [seconds(machine, t.count, t.rows, t.sizes.n) for t in times])
    return replace(machine, gains=fit.error(list(predicted.values()), list(found.values())))


def by_pattern(machine: Machine, times: Sequence[Time]) -> list[str]:
    """A line for each pattern: the geometric means of its gains where arithmetic is the limit, found and
    predicted."""
    many = [time for time in times if time.rows >= MANY_ROWS]
    found = _by_key(many, [time.seconds for time in many])
    predicted = _by_key(many, [seconds(machine, t.count, t.rows, t.sizes.n) for t in many])
    patterns = dict.fromkeys(pattern for pattern, *_ in found)
    return [
        f"  {pattern}, {MANY_ROWS} rows and more: measured {_mean(found, pattern):.2f}x dense, "
        f"predicted {_mean(predicted, pattern):.2f}x"
        for pattern in patterns
    ]


def _mean(gains: dict[Key, float], pattern: str) -> float:
    return geometric_mean(gain for key, gain in gains.items() if key[0] == pattern)


def _by_key(times: Sequence[Time], taken: Sequence[float]) -> dict[Key, float]:
    """By pattern, sizes and rows, dense time over that of the fastest form."""
    best: dict[Key, float] = {}
    for time, value in zip(times, taken, strict=True):
        key = (time.pattern, str(time.sizes), time.rows)
        best[key] = min(value, best.get(key, value))
    return {key: best[DENSE, *key[1:]] / value for key, value in best.items() if key[0] != DENSE}
