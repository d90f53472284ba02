"""What a run found, and its JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from openwork.support.files import write_atomic

from .peak import Level

VERSION = 1
DENSE = "dense"


@dataclass(frozen=True)
class PeerTime:
    """An engine on the same layer with the same zeros.

    seconds : a call less what a call of a layer of 16 weights takes, or None where that is most of it.
    call_seconds : a call. ratio : how many times openwork is faster; the median of the rounds. kernels : what
    the engine says it runs. doubt : why it is no fair comparison, or None.
    """

    seconds: float | None
    call_seconds: float
    ratio: float | None
    kernels: str
    doubt: str | None


@dataclass(frozen=True)
class Rate:
    """One layer in one type, pattern and form.

    rows, k, n : of the product. seconds : the median. gops : operations of the dense layer, in 10^9 a second.
    of_peak : gops over the dense peak of the same rounds. of_dense : how many times faster than the own dense
    form. of_one : than the same on one thread, where there are more. of_product : the rate of a dense
    convolution over that of the matrix product of its sizes. bytes : x, packed weights and y. best : the
    fastest form of its pattern.
    """

    layer: str
    shape: str
    rows: int
    k: int
    n: int
    type: str
    pattern: str
    form: str
    seconds: float
    gops: float
    of_peak: float
    of_dense: float
    of_one: float | None
    of_product: float | None
    bytes: int
    zeros: float
    best: bool
    peers: dict[str, PeerTime]

    @property
    def intensity(self) -> float:
        """Operations of the dense layer for each byte."""
        return self.gops * 1e9 * self.seconds / self.bytes


@dataclass(frozen=True)
class Refusal:
    """What was not timed, and why."""

    layer: str
    type: str
    pattern: str
    form: str
    reason: str


@dataclass(frozen=True)
class Run:
    """A whole run. peaks : operations a second by type, the median of the layers' rounds."""

    machine: dict[str, Any]
    isa: str
    threads: int
    patterns: tuple[str, ...]
    options: dict[str, Any]
    peaks: dict[str, float]
    levels: tuple[Level, ...]
    rates: tuple[Rate, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]

    def best(self, kind: str | None = None, pattern: str | None = None) -> list[Rate]:
        """The best form of each layer and pattern."""
        return [
            r
            for r in self.rates
            if r.best and (kind is None or r.type == kind) and (pattern is None or r.pattern == pattern)
        ]


@dataclass(frozen=True)
class Summary:
    """One pattern in one type: geometric means over its layers, and the layer that gains least."""

    type: str
    pattern: str
    layers: int
    of_peak: float
    of_dense: float
    peers: dict[str, float]
    worst: str
    worst_value: float


# Where the arithmetic is the limit, and not the bytes or the ends of tiles.
LARGE_ROWS, LARGE_K = 196, 512


def summaries(run: Run, large: bool = False) -> list[Summary]:
    """A summary for each type and pattern, in the run's order of both. large: only of the large layers."""
    chosen = [r for r in run.best() if not large or (r.rows >= LARGE_ROWS and r.k >= LARGE_K)]
    found: dict[tuple[str, str], list[Rate]] = {}
    for rate in sorted(chosen, key=lambda rate: run.patterns.index(rate.pattern)):
        found.setdefault((rate.type, rate.pattern), []).append(rate)
    return [_summary(*key, found[key]) for kind in run.peaks for key in found if key[0] == kind]


def slower(run: Run, peer: str) -> list[Rate]:
    """The dense layers that an engine runs faster, the worst first."""
    dense = [(ratio, i, r) for i, r in enumerate(run.best(pattern=DENSE)) if (ratio := _fair(r, peer))]
    return [rate for ratio, _, rate in sorted(dense) if ratio < 1]


def _summary(kind: str, pattern: str, rates: Sequence[Rate]) -> Summary:
    def gain(rate: Rate) -> float:
        return rate.of_peak if pattern == DENSE else rate.of_dense

    worst = min(rates, key=gain)
    names = {name for rate in rates for name in rate.peers}
    ratios = {name: [x for rate in rates if (x := _fair(rate, name)) is not None] for name in sorted(names)}
    return Summary(
        kind,
        pattern,
        len(rates),
        geometric_mean(rate.of_peak for rate in rates),
        geometric_mean(rate.of_dense for rate in rates),
        {name: geometric_mean(found) for name, found in ratios.items() if found},
        worst.layer,
        gain(worst),
    )


def _fair(rate: Rate, peer: str) -> float | None:
    time = rate.peers.get(peer)
    return None if time is None or time.doubt else time.ratio


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean of the logarithms; the values are positive."""
    return float(np.exp(np.mean(np.log(list(values)))))


def mark_best(rates: list[Rate]) -> list[Rate]:
    """The rates with the fastest form of each layer, type and pattern marked."""
    fastest: dict[tuple[str, str, str], float] = {}
    for r in rates:
        key = (r.layer, r.type, r.pattern)
        fastest[key] = min(r.seconds, fastest.get(key, r.seconds))
    return [replace(r, best=r.seconds == fastest[r.layer, r.type, r.pattern]) for r in rates]


def record(run: Run) -> dict[str, Any]:
    """The document of docs/benchmarks.md."""
    document = {"version": VERSION, **asdict(run), "summary": [asdict(s) for s in summaries(run)]}
    document["summary_large"] = [asdict(s) for s in summaries(run, large=True)]
    for entry, rate in zip(document["rates"], run.rates, strict=True):
        entry["intensity"] = rate.intensity
    return document


def write(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the record as JSON."""
    write_atomic(path, [json.dumps(record(run), indent=1).encode()])
