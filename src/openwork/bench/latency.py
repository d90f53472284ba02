"""Latency of several callables in one interleaved run, so that they meet the same machine.

A round gives each callable one turn. A turn first calls it untimed, until its caches, its clock and its
threads are its own again, and then times every call until the turn's share of the time is used. Each round
starts with the next callable, so none always follows the same neighbour.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PERCENTILES = (90.0, 95.0, 99.0)
STEADY_VARIATION = 0.025
"""Coefficient of variation above which a measurement deserves a warning (trtexec's 2.5%)."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Options:
    """How long to measure; all times in seconds, per callable."""

    warm_up: float = 0.2
    """Untimed calls before the first round."""
    duration: float = 3.0
    """Timed calls, over all rounds."""
    turn: float = 0.05
    """Timed calls in one turn; at least one call is timed in each turn."""
    settle: float = 0.005
    """Untimed calls at the beginning of each turn; at least one. Threads of another engine may wait busily
    for 50 ms after its turn."""
    minimum_rounds: int = 10
    """Rounds to run even if the duration is used up."""

    def __post_init__(self) -> None:
        for name in ("warm_up", "settle"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"The option {name} is a time in seconds, 0 or more; it is {getattr(self, name)}."
                )
        for name in ("duration", "turn", "minimum_rounds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"The option {name} must be positive; it is {getattr(self, name)}.")


@dataclass(frozen=True)
class Timing:
    """What one callable took: every timed call, in milliseconds, and the median of each of its turns."""

    samples: npt.NDArray[np.float64]
    turns: npt.NDArray[np.float64]

    @property
    def median(self) -> float:
        """Median latency in milliseconds."""
        return float(np.median(self.samples))

    @property
    def mean(self) -> float:
        """Mean latency in milliseconds."""
        return float(self.samples.mean())

    @property
    def variation(self) -> float:
        """Standard deviation of the calls divided by their mean."""
        return float(self.samples.std() / self.samples.mean())

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that `percent` of the calls stay within."""
        return float(np.percentile(self.samples, percent))

    def throughput(self, items: int = 1) -> float:
        """Items per second at `items` per call, from the mean latency."""
        return 1e3 * items / self.mean

    def record(self) -> dict[str, float]:
        """The numbers of this timing for a JSON file; latencies in milliseconds."""
        record = {"calls": len(self.samples), "minimum": float(self.samples.min()), "median": self.median}
        record |= {"mean": self.mean, "maximum": float(self.samples.max()), "variation": self.variation}
        return record | {f"percentile_{percent:g}": self.percentile(percent) for percent in PERCENTILES}


def measure(
    runners: Mapping[str, Callable[[], object]],
    options: Options = Options(),
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Time `runners` against each other in one interleaved run.

    runners: name -> a call without arguments. progress: told the finished fraction, in [0, 1], after each
    round. Raises ValueError if there is nothing to measure; what a runner raises passes through.
    """
    if not runners:
        raise ValueError("There is nothing to measure: no callable was given.")
    for call in runners.values():
        _call_for(call, options.warm_up)
    turns: dict[str, list[list[float]]] = {name: [] for name in runners}
    for names in _rounds(list(runners), options, turns):
        for name in names:
            turns[name].append(_turn(runners[name], options))
        if progress is not None:
            progress(_finished(turns, options))
    return {name: _timing(turns[name]) for name in runners}


def _rounds(
    names: list[str], options: Options, turns: Mapping[str, list[list[float]]]
) -> Iterator[list[str]]:
    """Orders of the names, each beginning one further on, until each has had its time."""
    at = 0
    while _finished(turns, options) < 1:
        yield names[at:] + names[:at]
        at = (at + 1) % len(names)


def _finished(turns: Mapping[str, list[list[float]]], options: Options) -> float:
    rounds = min(len(of_one) for of_one in turns.values()) / options.minimum_rounds
    spent = min(sum(map(sum, of_one)) for of_one in turns.values()) / 1e3 / options.duration
    return min(rounds, spent, 1.0)


def _turn(call: Callable[[], object], options: Options) -> list[float]:
    _call_for(call, options.settle)
    samples: list[float] = []
    while not samples or sum(samples) < 1e3 * options.turn:
        begin = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - begin) / 1e6)
    return samples


def _call_for(call: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    call()
    while time.perf_counter() < end:
        call()


def _timing(turns: list[list[float]]) -> Timing:
    medians = np.array([statistics.median(turn) for turn in turns])
    return Timing(np.array([sample for turn in turns for sample in turn]), medians)


def ratio(base: Timing, other: Timing) -> float:
    """How many times faster `other` is than `base`: the median over the rounds of base / other.

    Both come from the same call of `measure`. Within a round they stand next to each other, so a disturbance
    of the machine that lasts longer than a round cancels. Raises ValueError if they have different numbers
    of rounds.
    """
    if len(base.turns) != len(other.turns):
        raise ValueError(
            "A ratio takes two timings of the same run; "
            f"these have {len(base.turns)} and {len(other.turns)} rounds."
        )
    return float(np.median(base.turns / other.turns))


def summary(timing: Timing, items: int = 1) -> list[str]:
    """The lines of a performance summary in trtexec's words. items: how many one call does."""
    low, high = timing.samples.min(), timing.samples.max()
    percentiles = ", ".join(f"percentile({p:g}%) = {timing.percentile(p):.4g} ms" for p in PERCENTILES)
    lines = [
        "=== Performance summary ===",
        f"Throughput: {timing.throughput(items):.4g} qps",
        f"Latency: min = {low:.4g} ms, max = {high:.4g} ms, mean = {timing.mean:.4g} ms, "
        f"median = {timing.median:.4g} ms, {percentiles}",
    ]
    warning = variation_warning(timing)
    return lines if warning is None else [*lines, warning]


def variation_warning(timing: Timing) -> str | None:
    """A sentence if the calls vary by more than 2.5%, else None."""
    if timing.variation <= STEADY_VARIATION:
        return None
    return (
        f"The latency varies by {timing.variation:.1%} of its mean, more than {STEADY_VARIATION:.1%}; "
        "something else may be running on this machine, and the median is safer than the mean."
    )
