"""Building an engine: read, reduce, lower, time, pick, write, report."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from openwork.builder.eligibility import SPARSITY_MODES, Eligibility, judge
from openwork.builder.engine_file import write_engine
from openwork.builder.lower import BuildError, Lowered, lower
from openwork.builder.tactics import Problem, Timer, choices, environment, explain, fits
from openwork.builder.timing_cache import TimingCache, default_path
from openwork.graph import lowerable, read, reduce
from openwork.graph.model import describe
from openwork.program import Program, Step
from openwork.progress import Advance, progress_bar
from openwork.report import (
    REPORT_VERSION,
    BuildReport,
    FallbackPart,
    Fusion,
    Layer,
    Pick,
    Refusal,
    Settings,
)
from openwork.runtime.bind import DENSE, chosen_isa
from openwork.runtime.cores import physical_cores

log = logging.getLogger(__name__)

DEFAULT_SHAPES = ((1, 32), (1, 128), (16, 128))

def build(
    model: str | os.PathLike[str] | onnx.ModelProto,
    output: str | os.PathLike[str],
    *,
    sparsity: str = "on",
    shapes: Sequence[Sequence[int]] | None = None,
    threads: int | None = None,
    strict: bool = False,
    timing_cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build an engine from an ONNX model and write it to `output`, whole or not at all.

    sparsity : "on" (sparse where the weights hold a pattern and it is not slower), "off", or "force" (prune by
        magnitude to 2:4 first; accuracy is not kept).
    shapes : one size per free dimension of the inputs, in order of appearance; what the tactics are timed at.
        Default 1x32, 1x128 and 16x128.
    threads : what the tactics are timed with; default the physical cores that this process may use.
    strict : refuse a model that needs ONNX Runtime for a part of it.
    timing_cache : a JSON file; default one in the user's cache folder.
    progress : whether to show a bar on the standard error stream.
    Raises ValueError, in a sentence, for a model or an option that cannot be used, and OSError where the output cannot
    be written.
    """
    if sparsity not in SPARSITY_MODES:
        raise ValueError(f"The sparsity mode is one of {', '.join(SPARSITY_MODES)}, but it is {sparsity!r}.")
    said = Settings(sparsity, tuple(tuple(shape) for shape in shapes or ()), strict)
    cache = TimingCache.open(Path(timing_cache) if timing_cache is not None else default_path())
    with progress_bar("Building", 1.0, progress) as advance:
        advance(0.0, "reading")
        timer = Timer(environment(chosen_isa(None), threads or physical_cores()), cache)
        source = model if isinstance(model, onnx.ModelProto) else Path(model)
        reduced, changes, refusals = reduce(read(source))
        lowered = lower(reduced)
        fallbacks = _fallbacks(lowered, {describe(node): why for node, why in lowerable(reduced)}, strict)
        sizes = free_sizes(lowered.program, shapes)
        settings = replace(said, shapes=tuple(tuple(size.values()) for size in sizes))
        layers = _Layers(lowered, settings, timer)
        layers.decide(sizes, advance)
        cache.save()
        name = "(in memory)" if isinstance(source, onnx.ModelProto) else source.name
        report = BuildReport(
            REPORT_VERSION,
            name,
            timer.environment,
            settings,
            not layers.pruned,
            tuple(layers.notes()),
            tuple(layers.layers),
            tuple(Fusion(change.rule, change.node) for change in changes),
            tuple(Refusal(refusal.rule, refusal.node, refusal.reason) for refusal in refusals),
            fallbacks,
        )
        write_engine(output, layers.program(), report.to_json(), layers.tensors)
        advance(1.0, "written")
    for line in report.lines():
        log.info("%s", line)
    return report


def free_sizes(program: Program, shapes: Sequence[Sequence[int]] | None) -> list[dict[str, int]]:
    """For each shape the size of every free dimension of the inputs, in order of appearance.

    The default shapes are cut or filled up with 1 for another number of free dimensions; given ones must fit.
    """
    names = list(
        dict.fromkeys(d for port in program.inputs for d in program.values[port.value].shape if isinstance(d, str))
    )
    if shapes is None:
        fitted = ((*shape, *[1] * len(names))[: len(names)] for shape in DEFAULT_SHAPES)
        return [dict(zip(names, shape, strict=True)) for shape in dict.fromkeys(fitted)]
    for shape in shapes:
        if len(shape) != len(names) or any(size < 1 for size in shape):
            raise BuildError(
                f"A shape gives one size of at least 1 to each free dimension of the model's inputs "
                f"({', '.join(names) or 'there are none'}), but one is {'x'.join(map(str, shape)) or 'empty'}."
            )
    if not shapes:
        raise BuildError("There are no shapes to time at; give at least one.")
    return [dict(zip(names, shape, strict=True)) for shape in shapes]


def rows_of(step: Step, program: Program, sizes: Iterable[dict[str, int]]) -> list[int]:
    """The distinct numbers of rows that a linear step has at the given sizes, in increasing order."""
    shape = program.values[step.inputs[0] or 0].shape[:-1]
    return sorted(
        {math.prod(dim if isinstance(dim, int) else size.get(dim, 1) for dim in shape) for size in sizes}
    )


def _fallbacks(lowered: Lowered, reasons: Mapping[str, str], strict: bool) -> tuple[FallbackPart, ...]:
    """What ONNX Runtime runs, each node with its reason; raises BuildError where it may not or cannot run it."""
    parts = tuple(
        FallbackPart(part.step, part.nodes, " ".join(f"{node}: {reasons[node]}." for node in part.nodes))
        for part in lowered.fallbacks
    )
    problem = "The build is strict" if strict else _missing_runtime()
    if parts and problem:
        listed = " ".join(part.reason for part in parts)
        raise BuildError(f"{problem}, but a part of the model has no native implementation: {listed}")
    return parts


def _missing_runtime() -> str:
    """Why fallback steps cannot run here, or nothing."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"ONNX Runtime, which would run it, is not installed ({error})"
    return ""


@dataclass
class _Layers:
    """Decides each linear step of a program: pattern, tactics, storage."""

    lowered: Lowered
    settings: Settings
    timer: Timer
    layers: list[Layer] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    pruned: list[str] = field(default_factory=list)

    def decide(self, sizes: list[dict[str, int]], advance: Advance) -> None:
        """Judge, time and store every linear step; other steps and tensors pass through."""
        self.tensors.update(self.lowered.tensors)
        steps = self.lowered.program.steps
        for number, step in enumerate(steps):
            advance(number / len(steps), step.name)
            self.steps.append(self._linear(step, sizes) if step.op == "linear" else step)

    def program(self) -> Program:
        """The program with the decided steps."""
        return replace(self.lowered.program, steps=tuple(self.steps))

    def notes(self) -> list[str]:
        """What the user must know beyond the layers."""
        notes = []
        if self.pruned:
            notes.append(
                f"{len(self.pruned)} layers were pruned to 2:4 by magnitude in this build, without any training: the "
                "engine shows the speed, and the model's accuracy is not kept."
            )
        if any(step.op == "linear_float" for step in self.steps):
            count = sum(step.op == "linear_float" for step in self.steps)
            notes.append(f"{count} linear layers are not quantized and run in FP32, dense.")
        return notes

    def _linear(self, step: Step, sizes: list[dict[str, int]]) -> Step:
        weight = self.lowered.tensors[step.tensors["weight"]]
        found = judge(weight, self.settings.sparsity, fits(self.timer.environment.isa))
        if found.pruned:
            self.pruned.append(step.name)
        n, k = weight.shape
        pattern = str(found.pattern) if found.compressed is not None else None
        problem = Problem(n, k, pattern, step.attributes["activation"], "y_scale" in step.attributes)
        stored = found.weight if found.compressed is None else found.compressed
        rows = rows_of(step, self.lowered.program, sizes)
        buckets = tuple(self.timer.bucket(problem, stored, found.forms, count) for count in rows)
        decided = replace(step, tactics=choices(buckets))
        decided, size = self._store(decided, found)
        self.layers.append(
            Layer(
                step.name,
                n,
                k,
                problem.activation,
                "u8" if problem.quantized else "f32",
                None if found.pattern is None else str(found.pattern),
                found.zeros,
                bool(found.forms),
                found.reason,
                buckets,
                tuple(Pick(*choice) for choice in decided.tactics),
                explain(buckets),
                weight.nbytes,
                size,
            )
        )
        return decided

    def _store(self, step: Step, found: Eligibility) -> tuple[Step, int]:
        """Keep the weight compressed where a sparse tactic needs it or where that is smaller; gives its bytes."""
        name = step.tensors["weight"]
        compressed = found.compressed
        sparse = any(choice.tactic != DENSE for choice in step.tactics)
        if compressed is None or not (sparse or compressed.nbytes < found.weight.nbytes):
            self.tensors[name] = np.ascontiguousarray(found.weight)
            return step, found.weight.nbytes
        self.tensors.pop(name, None)
        self.tensors |= {f"{name}.values": compressed.values, f"{name}.indices": compressed.indices}
        return replace(step, pattern=str(found.pattern)), compressed.nbytes
