"""What is timed of a layer: each pattern's packed forms and engines, their results checked before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import ours, peers, problem, weights
from .problem import Array, Exact, Problem
from .results import DENSE, Refusal
from .shapes import Gemm, Layer

# Inputs of an engine that take turns: the same random numbers, moved on by so many.
INPUTS, STEP = 3, 997
# Forms of a pattern that are timed in every round: a first look may err between the fastest.
FORMS, FIRST_CALLS = 3, 3
CALL = Layer("call", "16", Gemm(1, 16, 16))


@dataclass(frozen=True)
class Settings:
    """What is timed: `patterns` in their text form, "dense" first; `calls` in each turn.

    all_forms : every form in every round, and not only those that a first look finds fast.
    """

    isa: str
    threads: int
    calls: int
    seed: int
    patterns: tuple[str, ...]
    peers: tuple[peers.Peer, ...]
    all_forms: bool = False


@dataclass
class Runner:
    """An engine's layer: the times of its turns in seconds, and fresh inputs, flat, of the same kind."""

    prepared: peers.Prepared
    inputs: list[Array]
    turns: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """One pattern of the layer: the problem, its packed forms and its engines."""

    problem: Problem
    forms: dict[str, Any]
    runners: dict[str, Runner]


def make_case(
    layer: Layer, kind: str, pattern: str, settings: Settings, refusals: list[Refusal]
) -> Case | None:
    """One pattern of a layer, or None where it means nothing there; what is left out joins `refusals`.

    Raises ValueError where a kernel or an engine gives a wrong result.
    """

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
    return Runner(prepared, [np.roll(prepared.x.reshape(-1), i * STEP) for i in range(INPUTS)])


def call_runner(peer: peers.Peer, kind: str, settings: Settings) -> Runner | None:
    """A layer too small to take time itself."""
    stated = problem.make(CALL, kind, DENSE, settings.seed)
    runner = _runner(peer, stated, problem.exact(stated), settings)
    return None if isinstance(runner, str) else runner


def keep_fast_forms(cases: list[Case], settings: Settings, refusals: list[Refusal]) -> None:
    """Leave each case the forms that are fastest at a first look."""
    for case in cases:
        names = list(case.forms)
        packed = list(case.forms.values())
        # Two looks, for the first form of all meets a machine that is not yet awake.
        looks = [ours.seconds(case.problem, packed, settings.threads, FIRST_CALLS) for _ in range(2)]
        first = np.minimum(*looks)
        order = np.argsort(first)
        for i in order[FORMS:]:
            reason = f"At a first look {1e6 * first[i]:.1f} us, against {1e6 * first[order[0]]:.1f}."
            stated = case.problem
            refusals.append(Refusal(str(stated.layer), stated.type, stated.pattern, names[i], reason))
            del case.forms[names[i]]
