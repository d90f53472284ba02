"""Timing whole engines of one model beside each other, and which one to keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from openwork.bench.latency import Options, Timing, measure, ratio
from openwork.builder.tactics import NEGLIGIBLE
from openwork.engine.report import WholeTime
from openwork.runtime.engine import Engine

WHOLE = "onnxruntime"
"""The model as one part in ONNX Runtime, which no engine may be slower than."""

_OPTIONS = Options(warm_up=0.02, duration=0.1, turn=0.01, settle=0.002, minimum_rounds=5)


def race(engines: Mapping[str, Engine], shapes: Sequence[Sequence[int]]) -> tuple[str, tuple[WholeTime, ...]]:
    """Time engines, WHOLE among them, at each shape, interleaved; gives the name of the one to keep.

    It is the one that gains most over WHOLE in the geometric mean, and is slower at no shape; else WHOLE.
    """
    timings = [_timed(engines, shape) for shape in shapes]
    times = tuple(
        WholeTime(tuple(shape), {name: t.median / 1e3 for name, t in timing.items()})
        for shape, timing in zip(shapes, timings, strict=True)
    )
    best, gain = WHOLE, 0.0
    for name in engines:
        gains = [math.log(ratio(timing[WHOLE], timing[name])) for timing in timings]
        mean = sum(gains) / len(gains)
        if name != WHOLE and mean > gain and min(gains) > -NEGLIGIBLE:
            best, gain = name, mean
    return best, times


def _timed(engines: Mapping[str, Engine], shape: Sequence[int]) -> dict[str, Timing]:
    feed = next(iter(engines.values())).sample(shape)
    return measure({name: partial(engine.run, feed) for name, engine in engines.items()}, _OPTIONS)
