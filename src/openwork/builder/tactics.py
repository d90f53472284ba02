"""Timing every way to run a linear layer and picking the fastest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openwork.builder.timing_cache import TimingCache
from openwork.machine import this_machine
from openwork.program import Choice
from openwork.report import Bucket, Environment
from openwork.runtime.bind import DENSE, Weight, native, pack, refusal, sparse_forms
from openwork.sparsity.compressed import Compressed

_PILOT_REPEATS = 3
_SECONDS_PER_PROBLEM = 0.25
_FEWEST_REPEATS, _MOST_REPEATS = 11, 401


@dataclass(frozen=True)
class Problem:
    """What decides a layer's speed, its number of rows aside: shape, pattern, activation, and u8 or f32 output."""

    n: int
    k: int
    pattern: str | None
    activation: str
    quantized: bool

    def key(self, rows: int, environment: Environment) -> str:
        """The timing cache's key: machine, kernels, threads and problem."""
        output = "u8" if self.quantized else "f32"
        machine = f"{environment.cpu}; {environment.isa}; {environment.threads} threads; kernels {environment.kernels}"
        return f"{machine}; {self.n}x{self.k} {self.pattern or DENSE} {self.activation} {output}; {rows} rows"


def environment(isa: str, threads: int) -> Environment:
    """What timings here are taken on."""
    machine = this_machine()
    return Environment(machine.versions["openwork"], machine.cpu, isa, threads, str(native().kernel_version()))


def fits(isa: str) -> Callable[[Compressed], tuple[tuple[str, ...], str]]:
    """Tells for compressed weights which sparse forms of `isa` hold them, and why the others do not."""

    def forms_for(weight: Compressed) -> tuple[tuple[str, ...], str]:
        refusals = {form: refusal(weight, form, isa) for form in sparse_forms(isa)}
        listed = " ".join(f"{form}: {reason}" for form, reason in refusals.items() if reason)
        return tuple(form for form, reason in refusals.items() if reason is None), listed or f"{isa} has none."

    return forms_for


@dataclass(frozen=True)
class Timer:
    """Times problems in one environment, through a cache."""

    environment: Environment
    cache: TimingCache

    def bucket(self, problem: Problem, weight: Weight, forms: tuple[str, ...], rows: int) -> Bucket:
        """Time dense and each of `forms` for one number of rows, or take the times from the cache, and pick."""
        tactics = (DENSE, *forms)
        key = problem.key(rows, self.environment)
        known = self.cache.get(key, tactics)
        if known is not None:
            return Bucket(rows, known, fastest(known), True)
        packed = [pack(weight, tactic, self.environment.isa) for tactic in tactics]
        seconds = dict(zip(tactics, self._medians(packed, problem, rows), strict=True))
        self.cache.put(key, seconds)
        return Bucket(rows, seconds, fastest(seconds), False)

    def _medians(self, packed: list[Any], problem: Problem, rows: int) -> list[float]:
        """Median seconds of each packed weight, interleaved, over as many repeats as the time allows."""

        def timed(repeats: int) -> Any:
            arguments = (rows, problem.activation, problem.quantized, self.environment.threads, repeats)
            return native().time_linear(packed, *arguments)

        once = float(np.median(timed(_PILOT_REPEATS), axis=1).sum())
        repeats = int(np.clip(_SECONDS_PER_PROBLEM / max(once, 1e-9), _FEWEST_REPEATS, _MOST_REPEATS))
        return [float(seconds) for seconds in np.median(timed(repeats), axis=1)]


def fastest(seconds: Mapping[str, float]) -> str:
    """The tactic to run: a sparse one where the fastest of them takes no longer than dense."""
    sparse = {tactic: time for tactic, time in seconds.items() if tactic != DENSE}
    best = min(sparse, key=sparse.__getitem__, default=DENSE)
    return best if seconds[best] <= seconds[DENSE] else DENSE


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
    parts = []
    for bucket in buckets:
        others = {tactic: seconds for tactic, seconds in bucket.seconds.items() if tactic != bucket.pick}
        if not others:
            return "Dense is the only tactic for this layer."
        if bucket.pick == DENSE:
            best = min(others, key=others.__getitem__)
            ratio = others[best] / bucket.seconds[DENSE]
            parts.append(f"at {bucket.rows} rows dense, since {best} takes {ratio:.2f} times as long")
        else:
            ratio = bucket.seconds[DENSE] / bucket.seconds[bucket.pick]
            parts.append(f"at {bucket.rows} rows {bucket.pick}, {ratio:.2f} times as fast as dense")
    return ("; ".join(parts) + ".").capitalize()
