"""Loading and running engines."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from openwork.backends.backend import BoundPart, Runner, StepTime
from openwork.backends.registry import backend_named
from openwork.backends.target import Target, choose_target, thread_count
from openwork.engine.engine_file import read_engine
from openwork.engine.file_tensors import FileTensors
from openwork.engine.parts import Part, split
from openwork.engine.ports import FeedCheck, TensorInfo, disagreement, inputs_of, outputs_of
from openwork.engine.program import Program
from openwork.engine.report import BuildReport, read_report
from openwork.engine.sample import id_limits, sample_inputs
from openwork.engine.sizes import free_names
from openwork.support.fields import EngineFileError
from openwork.support.numbers import whole_number

Array = NDArray[Any]
Arrays = dict[str, Array]


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
        not read: that takes their whole length in time and memory.
    Raises EngineFileError for a file that is damaged or malformed, OSError where it cannot be opened,
    ValueError for an instruction set that this machine lacks, ImportError where the engine needs ONNX
    Runtime and it is missing.
    """
    target = choose_target(isa, threads)
    file = read_engine(path)
    report = read_report(file.report)
    if verify:
        file.tensors.verify()
    try:
        return bound_engine(file.program, file.tensors, report, target)
    except EngineFileError:
        raise
    except ValueError as error:
        raise EngineFileError(
            f"{file.path}: field 'program': expected steps that can run here, found: {error}"
        ) from error


def bound_engine(
    program: Program, tensors: Mapping[str, Array], report: BuildReport | None, target: Target
) -> Engine:
    """The engine of a program and its tensors, of a file or in memory, with its weights packed.

    Raises ValueError where a step cannot run here, ImportError where a package is missing.
    """
    parts = tuple(_bind(part, tensors, target) for part in split(program))
    mapped = tensors.mapped if isinstance(tensors, FileTensors) else tensors
    return Engine(program, report, target, parts, id_limits(program, mapped))


class Engine:
    """A loaded engine: immutable, shared by its contexts.

    `run` uses a context of the engine's own; for runs at the same time take one `context()` per thread.
    """

    def __init__(
        self,
        program: Program,
        report: BuildReport | None,
        target: Target,
        parts: tuple[_Loaded, ...],
        limits: dict[str, int],
    ) -> None:
        self.inputs: tuple[TensorInfo, ...] = inputs_of(program)
        self.outputs: tuple[TensorInfo, ...] = outputs_of(program)
        self._report, self.isa, self.threads = report, target.isa, target.threads
        self._program, self._parts, self._limits = program, parts, limits
        self._own = self.context()

    @property
    def report(self) -> BuildReport:
        """The report of the build that made the engine."""
        if self._report is None:
            raise ValueError("An engine that was not loaded from a file has no report.")
        return self._report

    @property
    def free_dimensions(self) -> tuple[str, ...]:
        """The names of the inputs' free dimensions, in order of appearance."""
        return free_names(self._program)

    def context(self, threads: int | None = None) -> Context:
        """A further context, with its own threads and scratch memory; it shares the weights.

        threads : of what runs on openwork's kernels; default the engine's. What ONNX Runtime runs is one
            session for all contexts, with the engine's threads.
        """
        return Context(self, self.threads if threads is None else thread_count(threads))

    def run(self, feed: Mapping[str, Array]) -> Arrays:
        """The outputs by name for the inputs by name; see `Context.run`."""
        return self._own.run(feed)

    def bare(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """A call that runs the engine of one part without looking at what it is fed, for timing what this
        costs."""
        ((part, runner),) = self._own._runners
        order = {port.value: feed[port.name] for port in self._program.inputs}
        return partial(runner.run, [order[index] for index in part.inputs])

    def sample(self, sizes: Sequence[int], seed: int = 0) -> Arrays:
        """Random inputs that the engine accepts, for timing it; see
        `openwork.engine.sample.sample_inputs`."""
        return sample_inputs(self._program, self._limits, sizes, seed)

    def profile(self, feed: Mapping[str, Array], repeats: int = 20) -> list[StepTime]:
        """Run `repeats` times and say what each step took, in program order."""
        return self.context().profile(feed, whole_number(repeats, "The number of repeats of a profile"))


class Context:
    """One thread pool and one scratch arena; runs of one context wait for each other, contexts run side by
    side."""

    def __init__(self, engine: Engine, threads: int) -> None:
        self._engine = engine
        self._runners = [(part, part.bound.runner(threads)) for part in engine._parts]
        self._checked = FeedCheck(engine.inputs)

    def run(self, feed: Mapping[str, Array]) -> Arrays:
        """Run the engine once.

        feed : for each input a NumPy array of its type and shape; not in C order it is copied.
        Returns new arrays by the outputs' names.
        Raises TypeError or ValueError naming the input, what is expected and what came.
        """
        program = self._engine._program
        arrays = self._checked(feed)
        values = {port.value: array for port, array in zip(program.inputs, arrays, strict=True)}
        for part, runner in self._runners:
            made = self._made(part, runner, values)
            values.update(zip(part.outputs, made, strict=True))
        fed = {port.value for port in program.inputs}
        return {
            p.name: values[p.value].copy() if p.value in fed else values[p.value] for p in program.outputs
        }

    def _made(self, part: _Loaded, runner: Runner, values: Mapping[int, Array]) -> list[Array]:
        """What a part makes; sizes that it refuses are said by the names of the engine."""
        try:
            return runner.run([values[index] for index in part.inputs])
        except ValueError as error:
            reason = disagreement(self._engine._program, values, part.inputs)
            if reason is None:
                raise
            raise ValueError(reason) from error

    def profile(self, feed: Mapping[str, Array], repeats: int) -> list[StepTime]:
        """Run once untimed, then `repeats` times, and say what each step took."""
        self.run(feed)
        for _, runner in self._runners:
            runner.enable_profile(True)
        try:
            for _ in range(repeats):
                self.run(feed)
            return [step for _, runner in self._runners for step in runner.profile()]
        finally:
            for _, runner in self._runners:
                runner.enable_profile(False)


@dataclass(frozen=True)
class _Loaded:
    """A part of the program with what its contexts share.

    inputs, outputs : indices into the values of the program.
    """

    bound: BoundPart
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _bind(part: Part, tensors: Mapping[str, Array], target: Target) -> _Loaded:
    bound = backend_named(part.backend).bind(part, tensors, target)
    return _Loaded(bound, part.inputs, part.outputs)
