"""Loading and running engines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.bind import Bound, bind
from openwork.backends.cpu.packing import chosen_isa, native
from openwork.backends.onnxruntime.session import FallbackSession
from openwork.engine.engine_file import EngineFile, read_engine
from openwork.engine.ports import TensorInfo, check_feed, check_made, inputs_of, outputs_of
from openwork.engine.program import Program
from openwork.engine.report import BuildReport, read_report
from openwork.engine.sample import id_limits, sample_inputs
from openwork.engine.sizes import free_names
from openwork.runtime.split import Part, split
from openwork.support.cores import physical_cores
from openwork.support.fields import EngineFileError

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class StepTime:
    """What one step took in a profile: its name, total seconds, and calls."""

    name: str
    seconds: float
    calls: int


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    isa: str | None = None,
    *,
    verify: bool = False,
) -> Engine:
    """Load an engine file, checking everything in it, and pack its weights for this machine.

    threads : of each context; default the physical cores that this process may use.
    isa : an instruction set; default what OPENWORK_ISA says, or the best of this machine.
    verify : check the digests of embedding tables of more than 64 MiB as well, which are otherwise mapped and
    not
        read: that takes their whole length in time and memory.
    Raises EngineFileError for a file that is damaged or malformed, OSError where it cannot be opened,
    ValueError for an instruction set that this machine lacks, ImportError where the engine needs ONNX
    Runtime and it is missing.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"The number of threads is at least 1, but it is {threads}.")
    chosen = chosen_isa(isa)
    file = read_engine(path)
    report = read_report(file.report)
    if verify:
        file.tensors.verify()
    try:
        bound = tuple(_bind(part, file, chosen, threads or physical_cores()) for part in split(file.program))
    except EngineFileError:
        raise
    except ValueError as error:
        raise EngineFileError(
            f"{file.path}: field 'program': expected steps that can run here, found: {error}"
        ) from error
    limits = id_limits(file.program, file.tensors.mapped)
    return Engine(file.program, report, chosen, threads or physical_cores(), bound, limits)


class Engine:
    """A loaded engine: immutable, shared by its contexts.

    `run` uses a context of the engine's own; for runs at the same time take one `context()` per thread.
    """

    def __init__(
        self,
        program: Program,
        report: BuildReport,
        isa: str,
        threads: int,
        parts: tuple[_BoundPart, ...],
        limits: dict[str, int],
    ) -> None:
        self.inputs: tuple[TensorInfo, ...] = inputs_of(program)
        self.outputs: tuple[TensorInfo, ...] = outputs_of(program)
        self.report, self.isa, self.threads = report, isa, threads
        self._program, self._parts, self._limits = program, parts, limits
        self._own = self.context()

    @property
    def free_dimensions(self) -> tuple[str, ...]:
        """The names of the inputs' free dimensions, in order of appearance."""
        return free_names(self._program)

    def context(self, threads: int | None = None) -> Context:
        """A further context, with its own threads and scratch memory; it shares the weights."""
        return Context(self, threads or self.threads)

    def run(self, feed: Mapping[str, Array]) -> Arrays:
        """The outputs by name for the inputs by name; see `Context.run`."""
        return self._own.run(feed)

    def sample(self, sizes: Sequence[int], seed: int = 0) -> Arrays:
        """Random inputs that the engine accepts, for timing it; see
        `openwork.engine.sample.sample_inputs`."""
        return sample_inputs(self._program, self._limits, sizes, seed)

    def profile(self, feed: Mapping[str, Array], repeats: int = 20) -> list[StepTime]:
        """Run `repeats` times and say what each step took, in program order."""
        if repeats < 1:
            raise ValueError(f"A profile takes at least 1 repeat, but {repeats} were asked for.")
        return self.context().profile(feed, repeats)


class Context:
    """One thread pool and one scratch arena; runs of one context wait for each other, contexts run side by
    side."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._runners = [part.runner(threads) for part in engine._parts]

    def run(self, feed: Mapping[str, Array]) -> Arrays:
        """Run the engine once.

        feed : for each input a NumPy array of its type and shape; not in C order it is copied.
        Returns new arrays by the outputs' names.
        Raises TypeError or ValueError naming the input, what is expected and what came.
        """
        program = self._engine._program
        arrays = check_feed(self._engine.inputs, feed)
        values = {port.value: array for port, array in zip(program.inputs, arrays, strict=True)}
        for runner in self._runners:
            made = runner.run([values[index] for index in runner.inputs])
            values.update(zip(runner.outputs, made, strict=True))
        fed = {port.value for port in program.inputs}
        return {
            p.name: values[p.value].copy() if p.value in fed else values[p.value] for p in program.outputs
        }

    def profile(self, feed: Mapping[str, Array], repeats: int) -> list[StepTime]:
        """Run once untimed, then `repeats` times, and say what each step took."""
        self.run(feed)
        for runner in self._runners:
            runner.enable_profile(True)
        try:
            for _ in range(repeats):
                self.run(feed)
            return [step for runner in self._runners for step in runner.profile()]
        finally:
            for runner in self._runners:
                runner.enable_profile(False)


@dataclass(frozen=True)
class _NativeRunner:
    context: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def run(self, inputs: list[Array]) -> list[Array]:
        return list(self.context.run(inputs))

    def enable_profile(self, enabled: bool) -> None:
        self.context.enable_profile(enabled)

    def profile(self) -> list[StepTime]:
        return [StepTime(*entry) for entry in self.context.profile()]


@dataclass
class _FallbackRunner:
    session: FallbackSession
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    expected: tuple[TensorInfo, ...]
    seconds: list[float] | None = None

    def run(self, inputs: list[Array]) -> list[Array]:
        begin = time.perf_counter()
        made = self.session.run(inputs)
        for info, array in zip(self.expected, made, strict=True):
            check_made(self.session.name, info, array)
        if self.seconds is not None:
            self.seconds.append(time.perf_counter() - begin)
        return [np.ascontiguousarray(array) for array in made]

    def enable_profile(self, enabled: bool) -> None:
        self.seconds = [] if enabled else None

    def profile(self) -> list[StepTime]:
        return [StepTime(self.session.name, sum(self.seconds or ()), len(self.seconds or ()))]


@dataclass(frozen=True)
class _BoundPart:
    """A part of the program with what its contexts share."""

    part: Part
    bound: Bound | None
    session: FallbackSession | None

    def runner(self, threads: int) -> _NativeRunner | _FallbackRunner:
        if self.bound is not None:
            return _NativeRunner(
                native().Context(self.bound.program, threads), self.bound.inputs, self.bound.outputs
            )
        if self.session is None:
            raise ValueError("A part of a program is native or has a session.")
        expected = outputs_of(self.part.program)
        return _FallbackRunner(self.session, self.part.inputs, self.part.outputs, expected)


def _bind(part: Part, file: EngineFile, isa: str, threads: int) -> _BoundPart:
    if part.native:
        return _BoundPart(part, bind(part.program, file.tensors, isa), None)
    step = part.program.steps[0]
    model = file.tensors[step.tensors["model"]]
    return _BoundPart(part, None, FallbackSession(step, part.program.values, model, threads))
