"""Timing everybody who runs a layer in one interleaved run, after checking what each of them gives.

A round lets each runner take its turn: the register loop, every packed form, every engine. A turn is the
median of a few calls; a ratio is the median over the rounds of the ratios of turns, so that a slow change of
the machine's clock, or a disturbance that is longer than a round, meets both sides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ours, peak, peers, problem, weights
from .problem import Array, Exact, Problem
from .results import DENSE, PeerTime, Rate, Refusal, mark_best
from .shapes import Gemm, Layer

Floats = NDArray[np.float64]

ROUNDS = 7
# More than the second level of cache of a core: between two calls of a layer a network streams its other
# weights through it, so that they come from the third.
SWEPT_BYTES = 4 << 20
INPUTS = 3
# Below this share of a call the layer's own time is in the noise of the call's.
LEAST_SHARE = 0.25
# A turn of an engine lasts no longer, once it has had one call.
LONGEST_TURN = 0.03
CALL = Layer("call", "16", Gemm(1, 16, 16))


@dataclass(frozen=True)
class Settings:
    """What is timed: `patterns` in their text form, "dense" first; `calls` in each turn."""

    isa: str
    threads: int
    calls: int
    seed: int
    patterns: tuple[str, ...]
    peers: tuple[peers.Peer, ...]


@dataclass
class Runner:
    """An engine's layer: the times of its turns in seconds, and fresh inputs of the same kind."""

    prepared: peers.Prepared
    inputs: list[Array]
    turns: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One pattern of the layer: the problem, its packed forms and its engines."""

    problem: Problem
    forms: dict[str, Any]
    runners: dict[str, Runner]


def measure(layer: Layer, kind: str, settings: Settings) -> tuple[list[Rate], list[Refusal], float]:
    """Every pattern, form and engine on one layer in one type: rates, what was refused, and the peak.

    Raises ValueError where somebody gives a wrong result: its time would mean nothing.
    """
    refusals: list[Refusal] = []
    found = [_case(layer, kind, pattern, settings, refusals) for pattern in settings.patterns]
    cases = [case for case in found if case is not None]
    if not cases or not cases[0].forms:
        return [], refusals, peak.operations(kind, settings.isa, settings.threads)
    calls = {peer.name: runner for peer in settings.peers if (runner := _call_runner(peer, kind, settings))}
    peaks, own = _rounds(cases, calls, settings)
    return mark_best(_rates(cases, calls, peaks, own)), refusals, float(np.median(peaks))


def _case(layer: Layer, kind: str, pattern: str, settings: Settings, refusals: list[Refusal]) -> Case | None:
    def refuse(form: str, reason: str) -> None:
        refusals.append(Refusal(str(layer), kind, pattern, form, reason))

    if reason := weights.refusal(layer.shape, pattern):
        refuse("", reason)
        return None
    stated = problem.make(layer, kind, pattern, settings.seed)
    truth = problem.exact(stated)
    forms = {}
    for form, packed in ours.packed_forms(stated, settings.isa):
        if isinstance(packed, str):
            refuse(form, packed)
        else:
            ours.verify(stated, truth, packed, settings.threads)
            forms[form] = packed
    runners = {}
    for peer in settings.peers:
        runner = _runner(peer, stated, truth, settings)
        if isinstance(runner, str):
            refuse(peer.name, runner)
        else:
            runners[peer.name] = runner
    return Case(stated, forms, runners)


def _runner(peer: peers.Peer, stated: Problem, truth: Exact, settings: Settings) -> Runner | str:
    prepared = peer.prepare(stated, settings.threads)
    if isinstance(prepared, str):
        return prepared
    prepared.run()
    problem.verify(stated, truth, prepared.output(), f"{peer.name}, which runs {prepared.kernels},")
    rng = np.random.default_rng(settings.seed)
    flat = prepared.x.reshape(-1)
    return Runner(prepared, [rng.permutation(flat).reshape(prepared.x.shape) for _ in range(INPUTS)])


def _call_runner(peer: peers.Peer, kind: str, settings: Settings) -> Runner | None:
    """A layer too small to take time itself."""
    stated = problem.make(CALL, kind, DENSE, settings.seed)
    runner = _runner(peer, stated, problem.exact(stated), settings)
    return None if isinstance(runner, str) else runner


def _rounds(
    cases: list[Case], calls: dict[str, Runner], settings: Settings
) -> tuple[Floats, dict[tuple[str, str], Floats]]:
    """The peak of each round, and the seconds of each pattern's forms; the runners keep their own."""
    keys = [(case.problem.pattern, form) for case in cases for form in case.forms]
    packed = [weights for case in cases for weights in case.forms.values()]
    other = np.ones(SWEPT_BYTES * settings.threads // 8, np.int64)
    peaks, own = [], []
    engines = [*calls.values(), *(runner for case in cases for runner in case.runners.values())]
    for number in range(ROUNDS):
        peaks.append(peak.operations(cases[0].problem.type, settings.isa, settings.threads))
        own.append(ours.seconds(cases[0].problem, packed, settings.threads, settings.calls))
        for i in range(len(engines)):
            _turn(engines[(i + number) % len(engines)], other, settings.calls)
    return np.array(peaks), dict(zip(keys, np.array(own).T, strict=True))


def _turn(runner: Runner, other: NDArray[np.int64], calls: int) -> None:
    """Calls of the layer with its weights coming from the third level of cache, its input from the second."""
    prepared, seconds = runner.prepared, []
    prepared.run()
    for i in range(calls):
        other.sum()
        np.copyto(prepared.x, runner.inputs[i % INPUTS])
        begin = time.perf_counter_ns()
        prepared.run()
        seconds.append((time.perf_counter_ns() - begin) * 1e-9)
        if sum(seconds) > LONGEST_TURN:
            break
    runner.turns.append(float(np.median(seconds)))


def _rates(
    cases: list[Case], calls: dict[str, Runner], peaks: Floats, own: dict[tuple[str, str], Floats]
) -> list[Rate]:
    dense = min((own[key] for key in own if key[0] == DENSE), key=lambda seconds: float(np.median(seconds)))
    return [
        _rate(case, form, own[case.problem.pattern, form], (peaks, dense), calls)
        for case in cases
        for form in case.forms
    ]


def _rate(
    case: Case, form: str, seconds: Floats, against: tuple[Floats, Floats], calls: dict[str, Runner]
) -> Rate:
    stated, shape = case.problem, case.problem.layer.shape
    peaks, dense = against
    return Rate(
        layer=str(stated.layer),
        shape=str(shape),
        rows=shape.rows,
        k=shape.k,
        n=shape.n,
        type=stated.type,
        pattern=stated.pattern,
        form=form,
        seconds=float(np.median(seconds)),
        gops=1e-9 * shape.operations / float(np.median(seconds)),
        of_peak=float(np.median(shape.operations / seconds / peaks)),
        of_dense=float(np.median(dense / seconds)),
        bytes=_bytes(stated, case.forms[form]),
        zeros=1 - stated.density,
        best=False,
        peers={name: _peer_time(seconds, runner, calls[name]) for name, runner in case.runners.items()},
    )


def _bytes(stated: Problem, packed: Any) -> int:
    width = {"int8": 1, "bf16": 2, "fp32": 4}[stated.type]
    shape = stated.layer.shape
    return width * int(np.prod(shape.x_shape) + np.prod(shape.y_shape)) + int(packed.nbytes)


def _peer_time(seconds: Floats, runner: Runner, call: Runner) -> PeerTime:
    """An engine's time without its call. The tiny layer takes more than the call, to the engine's gain."""
    turns = np.array(runner.turns)
    alone = turns - np.array(call.turns)
    known = bool(np.median(alone) > LEAST_SHARE * np.median(turns))
    prepared = runner.prepared
    return PeerTime(
        float(np.median(alone)) if known else None,
        float(np.median(turns)),
        float(np.median(alone / seconds)) if known else None,
        prepared.kernels,
        prepared.doubt,
    )
