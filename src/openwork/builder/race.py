"""Timing whole engines of one model beside each other, and which one to keep."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from openwork.bench.latency import Options, Timing, measure, ratio
from openwork.builder.tactics import NEGLIGIBLE
from openwork.engine.report import WholeTime
from openwork.runtime.engine import Engine

WHOLE = "onnxruntime"
"""The model as one part in ONNX Runtime, which no engine may be slower than."""

_OPTIONS = Options(warm_up=0.02, duration=0.1, turn=0.02, settle=0.06, minimum_rounds=5)
"""ONNX Runtime's threads wait busily for up to 50 ms after a turn of theirs, and take a core of whoever comes
next, who does not begin to count before they sleep."""

_CLOSE_OPTIONS = replace(_OPTIONS, duration=0.5, turn=0.04, minimum_rounds=15)
_CLOSE, _CLOSE_GAIN = 0.06, 0.01
"""Logarithms of ratios. A race that ends closer than the first is run again for longer, and decided by the
second: five turns of one call each do not show 3%."""


@dataclass(frozen=True)
class Result:
    """The name of the engine to keep, what each took by shape, and which shapes were left out, with why."""

    best: str
    times: tuple[WholeTime, ...]
    notes: tuple[str, ...]


def race(engines: Mapping[str, Engine], shapes: Sequence[Sequence[int]]) -> Result:
    """Time engines, WHOLE among them, at each shape, interleaved.

    Kept is the one that gains most over WHOLE in the geometric mean, more than what repeated timings of one
    engine show as well, and is slower at no shape; else WHOLE. Where one is close to WHOLE all are timed
    again for longer.
    Raises ValueError, with the reason, where the model runs at none of the shapes.
    """
    timings: dict[tuple[int, ...], dict[str, Timing]] = {}
    faults: dict[tuple[int, ...], ValueError] = {}
    asked = {tuple(shape) for shape in shapes}
    for shape in _tried(shapes):
        if shape not in asked and timings:
            break
        try:
            timings[shape] = _timed(engines, shape)
        except ValueError as error:
            faults[shape] = error
    if not timings:
        raise next(iter(faults.values()))
    best = _best(engines, timings.values(), NEGLIGIBLE)
    if any(name != WHOLE and abs(_gain(name, timings.values())) < _CLOSE for name in engines):
        timings = {shape: _timed(engines, shape, _CLOSE_OPTIONS) for shape in timings}
        best = _best(engines, timings.values(), _CLOSE_GAIN)
    times = tuple(
        WholeTime(shape, {name: t.median / 1e3 for name, t in timing.items()})
        for shape, timing in timings.items()
    )
    notes = (
        f"At {'x'.join(map(str, shape))} the model does not run: {error}"
        for shape, error in faults.items()
        if shape in asked
    )
    return Result(best, times, tuple(notes))


def _tried(shapes: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """The shapes, then, for a model that runs at none of them, smaller ones of the smallest."""
    yield from map(tuple, shapes)
    smaller = tuple(min(shapes, key=math.prod))
    while any(size > 1 for size in smaller):
        smaller = tuple(-(-size // 2) for size in smaller)
        yield smaller


Timings = Collection[Mapping[str, Timing]]
"""Of each shape."""


def _gains(name: str, timings: Timings) -> list[float]:
    """Over WHOLE, as logarithms."""
    return [math.log(ratio(timing[WHOLE], timing[name])) for timing in timings]


def _gain(name: str, timings: Timings) -> float:
    return math.fsum(_gains(name, timings)) / len(timings)


def _best(names: Iterable[str], timings: Timings, least: float) -> str:
    """WHOLE, or who gains most and more than `least`."""
    best, gain = WHOLE, least
    for name in names:
        mean = _gain(name, timings)
        if name != WHOLE and mean > gain and min(_gains(name, timings)) > -NEGLIGIBLE:
            best, gain = name, mean
    return best


def _timed(
    engines: Mapping[str, Engine], shape: Sequence[int], options: Options = _OPTIONS
) -> dict[str, Timing]:
    feed = next(iter(engines.values())).sample(shape)
    runners = {name: partial(engine.run, feed) for name, engine in engines.items()}
    # What ONNX Runtime alone takes, without the checks of an engine.
    return measure({**runners, WHOLE: engines[WHOLE].bare(feed)}, options)
