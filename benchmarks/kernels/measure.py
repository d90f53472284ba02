"""Timing everybody who runs a layer in one interleaved run, after checking what each of them gives.

A round lets each runner take its turn: the register loop, every packed form, every engine. A turn is the
median of a few calls; a ratio is the median over the rounds of the ratios of turns, so that a slow change of
the machine's clock, or a disturbance that is longer than a round, meets both sides.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ours, peak
from .cases import INPUTS, Case, Runner, Settings, call_runner, keep_fast_forms, make_case
from .problem import Problem
from .results import DENSE, PeerTime, Rate, Refusal, mark_best
from .shapes import Convolution, Layer

Floats = NDArray[np.float64]

ROUNDS = 7
# More than the second level of cache of a core: between two calls of a layer a network streams its other
# weights through it, so that they come from the third.
SWEPT_BYTES = 4 << 20
# Below this share of a call the layer's own time is in the noise of the call's.
LEAST_SHARE = 0.25
# A turn of an engine lasts no longer, once it has had one call.
LONGEST_TURN = 0.03


def measure(layer: Layer, kind: str, settings: Settings) -> tuple[list[Rate], list[Refusal], float]:
    """Every pattern, form and engine on one layer in one type: rates, what was refused, and the peak.

    Raises ValueError where somebody gives a wrong result: its time would mean nothing.
    """
    refusals: list[Refusal] = []
    found = [make_case(layer, kind, pattern, settings, refusals) for pattern in settings.patterns]
    cases = [case for case in found if case is not None]
    if not cases or not cases[0].forms:
        return [], refusals, peak.operations(kind, settings.isa, settings.threads)
    if not settings.all_forms:
        keep_fast_forms(cases, settings, refusals)
    calls = {peer.name: runner for peer in settings.peers if (runner := call_runner(peer, kind, settings))}
    rounds = _rounds(cases, calls, settings)
    return mark_best(_rates(cases, calls, rounds)), refusals, float(np.median(rounds.peaks))


@dataclass(frozen=True)
class Rounds:
    """By round: the peak, and the seconds of each (pattern, form), of the same on one thread, and of the
    dense matrix product of a convolution's sizes. Engines keep their own.
    """

    peaks: Floats
    own: dict[tuple[str, str], Floats]
    one: dict[tuple[str, str], Floats]
    product: Floats | None


def _rounds(cases: list[Case], calls: dict[str, Runner], settings: Settings) -> Rounds:
    stated, threads = cases[0].problem, settings.threads
    keys = [(case.problem.pattern, form) for case in cases for form in case.forms]
    packed = [weights for case in cases for weights in case.forms.values()]
    alike = _product(stated, settings)
    other = np.ones(SWEPT_BYTES // 8, np.int64)
    engines = [*calls.values(), *(runner for case in cases for runner in case.runners.values())]
    peaks, own, one, product = [], [], [], []
    for number in range(ROUNDS):
        peaks.append(peak.operations(stated.type, settings.isa, threads))
        own.append(ours.seconds(stated, packed, threads, settings.calls))
        if threads > 1:
            one.append(ours.seconds(stated, packed, 1, settings.calls))
        if alike:
            product.append(float(ours.seconds(alike[0], [alike[1]], threads, settings.calls)[0]))
        for i in range(len(engines)):
            _turn(engines[(i + number) % len(engines)], other, settings)
    return Rounds(
        np.array(peaks), _by_key(keys, own), _by_key(keys, one), np.array(product) if alike else None
    )


def _by_key(keys: list[tuple[str, str]], rounds: list[Floats]) -> dict[tuple[str, str], Floats]:
    return dict(zip(keys, np.array(rounds).T, strict=True)) if rounds else {}


def _product(stated: Problem, settings: Settings) -> tuple[Problem, Any] | None:
    """A dense convolution as a matrix product, packed."""
    if not isinstance(stated.layer.shape, Convolution) or stated.layer.shape.groups > 1:
        return None
    product = ours.as_product(stated)
    packed = dict(ours.packed_forms(product, settings.isa)).get(DENSE)
    return None if packed is None or isinstance(packed, str) else (product, packed)


def _turn(runner: Runner, other: NDArray[np.int64], settings: Settings) -> None:
    """Calls of the layer with its weights coming from the third level of cache, its input from the second.

    Only this thread's core can be prepared so. Further threads keep what they had: their part of the weights,
    and of the input, which is not written anew.
    """
    prepared, seconds = runner.prepared, []
    x = prepared.x.reshape(-1)
    mine = slice(0, -(-x.size // settings.threads))
    prepared.run()
    for i in range(settings.calls):
        other.sum()
        np.copyto(x[mine], runner.inputs[i % INPUTS][mine])
        begin = time.perf_counter_ns()
        prepared.run()
        seconds.append((time.perf_counter_ns() - begin) * 1e-9)
        if sum(seconds) > LONGEST_TURN:
            break
    runner.turns.append(float(np.median(seconds)))


def _rates(cases: list[Case], calls: dict[str, Runner], rounds: Rounds) -> list[Rate]:
    denses = [seconds for (pattern, _), seconds in rounds.own.items() if pattern == DENSE]
    dense = min(denses, key=lambda seconds: float(np.median(seconds)))
    return [_rate(case, form, rounds, dense, calls) for case in cases for form in case.forms]


def _rate(case: Case, form: str, rounds: Rounds, dense: Floats, calls: dict[str, Runner]) -> Rate:
    stated, shape = case.problem, case.problem.layer.shape
    key = (stated.pattern, form)
    seconds = rounds.own[key]
    product = rounds.product if stated.pattern == DENSE else None
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
        of_peak=float(np.median(shape.operations / seconds / rounds.peaks)),
        of_dense=float(np.median(dense / seconds)),
        of_one=float(np.median(rounds.one[key] / seconds)) if key in rounds.one else None,
        of_product=None if product is None else float(np.median(product / seconds)),
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
