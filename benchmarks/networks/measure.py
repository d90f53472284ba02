"""Everybody on one network and shape: settings, times in one interleaved run, scores compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.networks import runners
from benchmarks.networks.agreement import Agreement, agreement, float_tolerance, int8_step
from benchmarks.networks.files import FileError, Files
from benchmarks.networks.inputs import Feed, feed
from benchmarks.networks.plans import DENSE, STYLES, Kind, Shape
from benchmarks.networks.runners import Runner
from openwork.bench.latency import Options, Timing, measure, ratio

SETTLE = 0.06
"""Seconds: the threads of engines wait busily for up to 50 ms after a turn, and take a core of the next."""
_LOOK = Options(warm_up=0.05, duration=0.2, turn=0.02, minimum_rounds=3)


@dataclass(frozen=True)
class Settings:
    """How to measure. style: of the file that everybody gets; `STYLES` are tried besides for the peers.
    native: what this engine's builder is asked for. compared: images whose scores are compared. styles: of
    the files that the peers may take besides. seconds, rounds: for each runner, at least. floats: beside INT8
    the peers are timed in FP32 too.
    """

    threads: int = 2
    style: str = "onnxruntime"
    native: str | None = None
    compared: int = 20
    seconds: float = 2.0
    rounds: int = 11
    styles: tuple[str, ...] = STYLES
    floats: bool = False


@dataclass(frozen=True)
class Cell:
    """One pattern of one network and shape. milliseconds: of one call. ratios: how many times faster than
    each peer, the median over the rounds. best: than the faster peer. dense: than the own dense engine.
    floats: than the faster peer in FP32, where that was asked for.
    agreement: with ONNX Runtime on the same file. exact: with ONNX Runtime without optimizations. noise: of
    ONNX Runtime with optimizations with the same. refusal: why there is nothing, else empty.
    """

    network: str
    kind: Kind
    batch: int
    size: str
    pattern: str
    milliseconds: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    dense: float | None = None
    floats: float | None = None
    agreement: Agreement | None = None
    exact: Agreement | None = None
    noise: Agreement | None = None
    note: str = ""
    refusal: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the scores are those of ONNX Runtime: 99.9% within a step (all, in FP32), and the same
        best classes; or as near to what the file says as those of ONNX Runtime's own optimizations.
        """
        if self.agreement is None or self.exact is None or self.noise is None:
            return True
        if self.agreement.within >= (0.999 if self.kind == "int8" else 1) and self.agreement.top1 == 1:
            return True
        return self.exact.within >= self.noise.within and self.exact.top1 >= self.noise.top1


Say = Callable[[str], None]


@dataclass
class _Run:
    """One network at one shape, step by step."""

    files: Files
    kind: Kind
    shape: Shape
    how: Settings
    made: dict[str, Runner] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    others: dict[str, Runner] = field(default_factory=dict)
    floats: dict[str, Runner] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def path(self, pattern: str) -> Path:
        """The file that everybody gets."""
        return self.files.path(pattern, self.kind, self.how.style, self.shape)

    def build(self, pattern: str, given: Feed) -> None:
        """Make this engine's runner, or keep the reason why there is none."""
        try:
            self.made[pattern] = runners.ours(self.path(pattern), given, self.how.threads, self.how.native)
        except (FileError, ValueError) as error:
            self.refused[pattern] = str(error).splitlines()[0]

    def time(self) -> None:
        """Everybody in turns."""
        calls = {pattern: one.call for pattern, one in self.made.items()}
        calls |= {name: one.call for name, one in self.others.items()}
        calls |= {_in_floats(name): one.call for name, one in self.floats.items()}
        how = Options(duration=self.how.seconds, settle=SETTLE, minimum_rounds=self.how.rounds)
        self.timings = measure(calls, how)

    def cell(self, pattern: str) -> Cell:
        """What was found of one pattern."""
        place = (self.files.network, self.kind, self.shape.batch, f"{self.shape.height}x{self.shape.width}")
        if pattern in self.refused:
            return Cell(*place, pattern, refusal=self.refused[pattern])
        own, peers = self.timings[pattern], {name: self.timings[name] for name in self.others}
        ratios = {name: ratio(timing, own) for name, timing in peers.items()}
        faster = min(peers, key=lambda name: peers[name].median)
        floats = [self.timings[_in_floats(name)] for name in self.floats]
        return Cell(
            *place,
            pattern,
            milliseconds=own.median,
            peers={name: timing.median for name, timing in peers.items()},
            settings={name: one.setting for name, one in self.others.items()},
            ratios=ratios,
            best=ratios[faster],
            dense=ratio(self.timings[DENSE], own) if DENSE in self.made else None,
            floats=ratio(min(floats, key=lambda one: one.median), own) if floats else None,
            note=self.made[pattern].note,
            **self.compare(pattern),
        )

    def compare(self, pattern: str) -> dict[str, Agreement]:
        """The scores of random images beside those of ONNX Runtime, with and without optimizations."""
        path, batches = self.path(pattern), -(-self.how.compared // self.shape.batch)
        feeds = [feed(self.files.network, self.shape, 100 + i) for i in range(batches)]
        everyone = (
            next(runners.onnxruntime(path, feeds[0], self.how.threads)),
            runners.exact(path, feeds[0]),
        )
        optimized, plain = ([one.scores(each) for each in feeds] for one in everyone)
        own = [self.made[pattern].scores(each) for each in feeds]
        step = (int8_step if self.kind == "int8" else float_tolerance)(path, plain)
        return {
            "agreement": agreement(own, optimized, step),
            "exact": agreement(own, plain, step),
            "noise": agreement(optimized, plain, step),
        }


def _in_floats(engine: str) -> str:
    return f"{engine} fp32"


def cells(files: Files, kind: Kind, shape: Shape, patterns: list[str], how: Settings, say: Say) -> list[Cell]:
    """Measure every pattern of a network at one shape, together with the peers, in one interleaved run.

    say: told what is being done.
    """
    given, what = feed(files.network, shape, 11), f"{files.network} {kind} {shape}"
    run = _Run(files, kind, shape, how)
    for pattern in patterns:
        say(f"{what}: {pattern}")
        run.build(pattern, given)
    say(f"{what}: the peers' settings")
    run.others = _peers(files, kind, shape, given, how)
    if how.floats and kind == "int8":
        run.floats = _peers(files, "fp32", shape, given, how)
    say(f"{what}: times")
    run.time()
    say(f"{what}: agreement")
    return [run.cell(pattern) for pattern in patterns]


def _peers(files: Files, kind: Kind, shape: Shape, given: Feed, how: Settings) -> dict[str, Runner]:
    """The fastest setting and style of file of each peer, on the dense network: zeros speed no peer up."""
    tried: dict[str, tuple[float, Runner]] = {}
    for runner in _candidates(files, kind, shape, given, how):
        seconds = statistics.median(measure({"": runner.call}, _LOOK)[""].samples)
        if runner.engine not in tried or seconds < tried[runner.engine][0]:
            tried[runner.engine] = (seconds, runner)
    return {name: runner for name, (_, runner) in tried.items()}


def _candidates(files: Files, kind: Kind, shape: Shape, given: Feed, how: Settings) -> Iterator[Runner]:
    styles: Iterable[str] = dict.fromkeys((how.style, *how.styles)) if kind == "int8" else (how.style,)
    for style in styles:
        for runner in runners.peers(files.path(DENSE, kind, style, shape), given, how.threads):
            named = f"{runner.setting}, {style} file" if kind == "int8" else runner.setting
            yield Runner(runner.engine, named, runner.call, runner.scores)
