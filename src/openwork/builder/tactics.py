"""Timing every way to run a product and picking the fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from openwork.backends.backend import Array, Backend, Seconds
from openwork.backends.target import Target
from openwork.builder.faults import RequestError
from openwork.builder.timing_cache import TimingCache
from openwork.engine.problem import Problem, Tactic
from openwork.engine.program import Choice
from openwork.engine.report import Bucket, Environment
from openwork.engine.sizes import Timed

NEGLIGIBLE = 0.03
"""A difference that repeated timings of one tactic show as well."""

DISTURBED = 1.25
"""Median / lower quartile above which something else was running."""

_PILOT_REPEATS = 3
_SECONDS_PER_PROBLEM = 0.25
_FEWEST_REPEATS, _MOST_REPEATS = 11, 401


@dataclass(frozen=True)
class Timer:
    """Times problems in one environment, through a cache."""

    target: Target
    environment: Environment
    cache: TimingCache
    disturbed: list[str] = field(default_factory=list)
    timed: dict[str, Bucket] = field(default_factory=dict)

    def bucket(
        self, backend: Backend, problem: Problem, weight: Array, size: Timed, also: Problem | None = None
    ) -> Bucket:
        """Time the tactics of a product's weight at one size, or take known times, and pick.

        also : the same product of reduced precision, whose tactics take turns with the others. Equal
        problems of one build are timed once. Times of a disturbed machine are used for want of better ones,
        noted in `disturbed`, and not kept for the next build.
        """
        rows, problem = size.rows, problem if size.image is None else problem.on(size.image)
        tactics = backend.tactics(problem, rows)
        if also is not None:
            tactics = (*tactics, *backend.tactics(also, rows))
            problem = replace(problem, work={**problem.work, **also.work})
        key = timing_key(problem, tactics, rows, self.environment)
        if key not in self.timed:
            known = self.cache.get(key, tuple(map(str, tactics)))
            if known is None:
                ready = backend.time(problem, weight, tactics, rows, self.target)
                self.timed[key] = self._time(key, tactics, rows, ready)
            else:
                self.timed[key] = Bucket(rows, known, fastest(known), True)
        return self.timed[key]

    def _time(
        self, key: str, tactics: Sequence[Tactic], rows: int, ready: Callable[[int], Seconds]
    ) -> Bucket:
        try:
            quick, middle = _quartiles(ready)
        except MemoryError:
            raise RequestError(
                f"A layer cannot be timed at {rows} rows, which do not fit in memory; give smaller shapes."
            ) from None
        seconds = dict(zip(map(str, tactics), quick.tolist(), strict=True))
        if (middle > DISTURBED * quick).any():
            self.disturbed.append(key)
        else:
            self.cache.put(key, seconds)
        return Bucket(rows, seconds, fastest(seconds), False)


def timing_key(problem: Problem, tactics: Sequence[Tactic], rows: int, environment: Environment) -> str:
    """The timing cache's key: machine, kernels, threads, problem, and the work of what is timed."""
    work = ", ".join(f"{tactic} {problem.work[tactic]:.2f}" for tactic in tactics if tactic in problem.work)
    parts = (
        environment.cpu,
        environment.isa,
        f"{environment.threads} threads",
        f"kernels {environment.kernels}",
        str(problem),
        *((f"work {work}",) if work else ()),
        *(("beside bf16",) if problem.element == "f32" and any(t.element == "bf16" for t in tactics) else ()),
        f"{rows} rows",
    )
    return "; ".join(parts)


def _quartiles(timed: Callable[[int], Seconds]) -> tuple[Seconds, Seconds]:
    """Lower quartile and median of each tactic's times, interleaved.

    On a machine that does nothing else the two agree. On a busy one the median of a product that takes
    longer than the scheduler's slice is the time of a product that was interrupted; the lower quartile
    still is not.
    """
    once = float(np.median(timed(_PILOT_REPEATS), axis=1).sum())
    repeats = int(np.clip(_SECONDS_PER_PROBLEM / max(once, 1e-9), _FEWEST_REPEATS, _MOST_REPEATS))
    quick, middle = np.quantile(timed(repeats), (0.25, 0.5), axis=1)
    return quick, middle


def fastest(seconds: Mapping[str, float]) -> str:
    """The tactic to run: another than the first, dense one where the fastest of them takes no longer."""
    dense, *others = seconds
    best = min(others, key=seconds.__getitem__, default=dense)
    return best if seconds[best] <= seconds[dense] else dense


def of_element(bucket: Bucket, element: str) -> Bucket:
    """The bucket with the fastest tactic of an element type as its pick."""
    seconds = {text: s for text, s in bucket.seconds.items() if Tactic.parse(text).element == element}
    return replace(bucket, pick=fastest(seconds))


def reduced_is_faster(buckets: Sequence[Bucket]) -> bool:
    """Whether the best tactics of BF16 gain over those of FP32, by more than timings differ anyway, in the
    geometric mean of all numbers of rows, and lose so much at none."""
    ratios = []
    for bucket in buckets:
        full, half = (of_element(bucket, element) for element in ("f32", "bf16"))
        ratios.append(half.seconds[half.pick] / full.seconds[full.pick])
    mean = math.prod(ratios) ** (1 / len(ratios))
    return mean < 1 - NEGLIGIBLE and max(ratios) <= 1 + NEGLIGIBLE


def settle(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets with as few different sparse picks as their times allow.

    Each further pick costs a packed copy of the weights, so the sparse pick that is best over all buckets
    replaces another one wherever it takes at most NEGLIGIBLE more time and no more than dense. Only a pick
    that was timed in every bucket can.
    """
    picked = sorted({bucket.pick for bucket in buckets if bucket.pick != bucket.base})
    common = [tactic for tactic in picked if all(tactic in bucket.seconds for bucket in buckets)]
    if len(picked) < 2 or not common:
        return tuple(buckets)
    best = min(common, key=lambda tactic: sum(b.seconds[tactic] / b.seconds[b.pick] for b in buckets))
    return tuple(replace(bucket, pick=best) if _as_good(bucket, best) else bucket for bucket in buckets)


def _as_good(bucket: Bucket, tactic: str) -> bool:
    least = min(bucket.dense, (1 + NEGLIGIBLE) * bucket.seconds[bucket.pick])
    return bucket.pick != bucket.base and bucket.seconds[tactic] <= least


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
        return f"The only tactic for this layer is {buckets[0].base}."
    sentence = "; ".join(_explain(bucket) for bucket in buckets)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _explain(bucket: Bucket) -> str:
    where = f"at {bucket.rows} row{'s' if bucket.rows > 1 else ''} {bucket.pick}"
    if bucket.pick != bucket.base:
        ratio = bucket.dense / bucket.seconds[bucket.pick]
        return f"{where}, {ratio:.2f} times as fast as {bucket.base}"
    best = min((tactic for tactic in bucket.seconds if tactic != bucket.base), key=bucket.seconds.__getitem__)
    return f"{where}, since {best} takes {bucket.seconds[best] / bucket.dense:.2f} times as long"
