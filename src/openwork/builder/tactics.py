"""Timing every way to run a linear layer and picking the fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.packing import DENSE, expected_work, native, pack, sparse_forms
from openwork.backends.cpu.rivals import rivals
from openwork.builder.eligibility import Outlook
from openwork.builder.timing_cache import TimingCache
from openwork.engine.program import Choice
from openwork.engine.report import Bucket, Environment
from openwork.support.machine import this_machine

Weights = NDArray[np.int8]
Seconds = NDArray[np.float64]

NEGLIGIBLE = 0.03
"""A difference that repeated timings of one tactic show as well."""

DISTURBED = 1.25
"""Median / lower quartile above which something else was running."""

_PILOT_REPEATS = 3
_SECONDS_PER_PROBLEM = 0.25
_FEWEST_REPEATS, _MOST_REPEATS = 11, 401


@dataclass(frozen=True)
class Problem:
    """What decides a layer's speed, its number of rows aside: shape, pattern, activation, and u8 or f32
    output.

    work : expected work of each sparse form that may run it, dense taking 1; where zeros may be anywhere, the
        pattern's name alone does not say it.
    """

    n: int
    k: int
    pattern: str | None
    activation: str
    quantized: bool
    work: Mapping[str, float] = field(default_factory=dict)

    def tactics(self, rows: int) -> tuple[str, ...]:
        """What is timed at a number of rows: dense, and the sparse forms whose expected work is near the
        best."""
        return (DENSE, *rivals(self.work, rows))

    def key(self, rows: int, environment: Environment) -> str:
        """The timing cache's key: machine, kernels, threads and problem."""
        output = "u8" if self.quantized else "f32"
        work = ", ".join(f"{form} {self.work[form]:.2f}" for form in self.tactics(rows)[1:])
        parts = (
            environment.cpu,
            environment.isa,
            f"{environment.threads} threads",
            f"kernels {environment.kernels}",
            f"{self.n}x{self.k} {self.pattern or DENSE} {self.activation} {output}",
            *((f"work {work}",) if work else ()),
            f"{rows} rows",
        )
        return "; ".join(parts)


def environment(isa: str, threads: int) -> Environment:
    """What timings here are taken on."""
    machine = this_machine()
    return Environment(
        machine.versions["openwork"], machine.cpu, isa, threads, str(native().kernel_version())
    )


def outlook(isa: str) -> Callable[[Weights], Outlook]:
    """Tells for a weight s8 [n, k] what work each sparse form of `isa` is expected to take."""

    return lambda weight: expected_work(weight, sparse_forms(isa), isa)


@dataclass(frozen=True)
class Timer:
    """Times problems in one environment, through a cache."""

    environment: Environment
    cache: TimingCache
    disturbed: list[str] = field(default_factory=list)
    timed: dict[str, Bucket] = field(default_factory=dict)

    def bucket(self, problem: Problem, weight: Weights, rows: int) -> Bucket:
        """Time the tactics of a weight s8 [n, k] for one number of rows, or take known times, and pick.

        Equal problems of one build are timed once. Times of a disturbed machine are used for want of better
        ones, noted in `disturbed`, and not kept for the next build.
        """
        key = problem.key(rows, self.environment)
        if key not in self.timed:
            known = self.cache.get(key, problem.tactics(rows))
            self.timed[key] = (
                self._time(key, problem, weight, rows)
                if known is None
                else Bucket(rows, known, fastest(known), True)
            )
        return self.timed[key]

    def _time(self, key: str, problem: Problem, weight: Weights, rows: int) -> Bucket:
        tactics = problem.tactics(rows)
        packed = [pack(weight, tactic, self.environment.isa) for tactic in tactics]
        quick, middle = self._quartiles(packed, problem, rows)
        seconds = dict(zip(tactics, quick.tolist(), strict=True))
        if (middle > DISTURBED * quick).any():
            self.disturbed.append(key)
        else:
            self.cache.put(key, seconds)
        return Bucket(rows, seconds, fastest(seconds), False)

    def _quartiles(self, packed: list[Any], problem: Problem, rows: int) -> tuple[Seconds, Seconds]:
        """Lower quartile and median of each packed weight's times, interleaved.

        On a machine that does nothing else the two agree. On a busy one the median of a product that takes
        longer than the scheduler's slice is the time of a product that was interrupted; the lower quartile
        still is not.
        """

        def timed(repeats: int) -> Any:
            arguments = (rows, problem.activation, problem.quantized, self.environment.threads, repeats)
            return native().time_linear(packed, *arguments)

        once = float(np.median(timed(_PILOT_REPEATS), axis=1).sum())
        repeats = int(np.clip(_SECONDS_PER_PROBLEM / max(once, 1e-9), _FEWEST_REPEATS, _MOST_REPEATS))
        quick, middle = np.quantile(timed(repeats), (0.25, 0.5), axis=1)
        return quick, middle


def fastest(seconds: Mapping[str, float]) -> str:
    """The tactic to run: a sparse one where the fastest of them takes no longer than dense."""
    sparse = {tactic: time for tactic, time in seconds.items() if tactic != DENSE}
    best = min(sparse, key=sparse.__getitem__, default=DENSE)
    return best if seconds[best] <= seconds[DENSE] else DENSE


def settle(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets with as few different sparse picks as their times allow.

    Each further pick costs a packed copy of the weights, so the sparse pick that is best over all buckets
    replaces another one wherever it takes at most NEGLIGIBLE more time and no more than dense. Only a pick
    that was timed in every bucket can.
    """
    picked = sorted({bucket.pick for bucket in buckets} - {DENSE})
    common = [tactic for tactic in picked if all(tactic in bucket.seconds for bucket in buckets)]
    if len(picked) < 2 or not common:
        return tuple(buckets)
    best = min(common, key=lambda tactic: sum(b.seconds[tactic] / b.seconds[b.pick] for b in buckets))
    return tuple(replace(bucket, pick=best) if _as_good(bucket, best) else bucket for bucket in buckets)


def _as_good(bucket: Bucket, tactic: str) -> bool:
    least = min(bucket.seconds[DENSE], (1 + NEGLIGIBLE) * bucket.seconds[bucket.pick])
    return bucket.pick != DENSE and bucket.seconds[tactic] <= least


def choices(buckets: Sequence[Bucket]) -> tuple[Choice, ...]:
    """What runs each number of rows: the pick of the bucket that is nearest in ratio.

    Between two buckets of r and s rows the border lies at sqrt(r * s).
    """
    ordered = sorted(buckets, key=lambda bucket: bucket.rows)
    merged: list[Choice] = []
    for bucket, following in zip(ordered, [*ordered[1:], None], strict=True):
        if merged and merged[-1].tactic == bucket.pick:
            merged.pop()
        bound = None if following is None else math.isqrt(bucket.rows * following.rows)
        merged.append(Choice(bound, bucket.pick))
    return tuple(merged)


def explain(buckets: Sequence[Bucket]) -> str:
    """One sentence that says what was picked and by how much."""
    if all(len(bucket.seconds) == 1 for bucket in buckets):
        return "Dense is the only tactic for this layer."
    sentence = "; ".join(_explain(bucket) for bucket in buckets)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _explain(bucket: Bucket) -> str:
    where = f"at {bucket.rows} row{'s' if bucket.rows > 1 else ''} {bucket.pick}"
    if bucket.pick != DENSE:
        ratio = bucket.seconds[DENSE] / bucket.seconds[bucket.pick]
        return f"{where}, {ratio:.2f} times as fast as dense"
    best = min((tactic for tactic in bucket.seconds if tactic != DENSE), key=bucket.seconds.__getitem__)
    return f"{where}, since {best} takes {bucket.seconds[best] / bucket.seconds[DENSE]:.2f} times as long"
