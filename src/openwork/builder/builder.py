"""Building an engine: read, reduce, lower, time, pick, write, report."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import onnx

from openwork import graph
from openwork.backends.registry import backends as chosen_backends
from openwork.backends.target import choose_target, environment
from openwork.builder.eligibility import SPARSITY_MODES
from openwork.builder.free_sizes import known_sizes
from openwork.builder.layers import Decided, Request, decide, used_tensors
from openwork.builder.lower import BuildError, Lowered, lower
from openwork.builder.tactics import Timer
from openwork.builder.timing_cache import TimingCache, default_path
from openwork.engine.engine_file import write_engine
from openwork.engine.report import (
    REPORT_VERSION,
    BuildReport,
    FallbackPart,
    Fusion,
    LeftOut,
    Refusal,
    Settings,
)
from openwork.engine.sizes import free_sizes, whole_shapes
from openwork.graph import Change, check_rounding, read, reduce
from openwork.graph.stated_patterns import stated_patterns
from openwork.support.files import keep_apart, output_file
from openwork.support.progress import progress_bar

log = logging.getLogger(__name__)


def build(
    model: str | os.PathLike[str] | onnx.ModelProto,
    output: str | os.PathLike[str],
    *,
    sparsity: str = "on",
    rounding: str = "exact",
    shapes: Sequence[Sequence[int]] | None = None,
    threads: int | None = None,
    strict: bool = False,
    timing_cache: str | os.PathLike[str] | None = None,
    backends: str | Sequence[str] | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build an engine from an ONNX model and write it to `output`, whole or not at all.

    sparsity : "on" (sparse where the weights hold a pattern and it is not slower), "off", or "force" (prune
        to 2:4 by magnitude first; accuracy is not kept).
    rounding : "exact" (every quantizer of the model rounds and clamps as ONNX Runtime does), or "relaxed"
        (roundings between float operators may be left out, clamps stay; the report lists what was left out).
    shapes : one size per free dimension of the inputs, in order of appearance; what the tactics are timed at.
        Default 1x32, 1x128 and 16x128.
    threads : what the tactics are timed with; default the physical cores that this process may use.
    strict : refuse a model that needs more than the first back end.
    backends : names of the back ends that may run parts of the model, the one to ask first in front; default
        all, "cpu" first, then "onnxruntime"; one name may stand alone.
    timing_cache : a JSON file; default one in the user's cache folder.
    progress : whether to show a bar on the standard error stream.
    Raises ValueError or TypeError, in a sentence, for a model or an option that cannot be used, and OSError
    where the output cannot be written; both before anything is timed.
    """
    _check_options(sparsity, rounding, shapes)
    source = _source(model)
    output_file(output)
    cache = TimingCache.open(default_path()) if timing_cache is None else TimingCache.at(timing_cache)
    keep_apart((output, timing_cache), () if isinstance(source, onnx.ModelProto) else (source,))
    target = choose_target(None, threads)
    timer = Timer(target, environment(target), cache)
    usable = chosen_backends(backends)
    with progress_bar("Building", 1.0, progress) as advance:
        advance(0.0, "reading and fusing")
        # Operators of openwork are for those that run them: a back end that takes ONNX, asked first, gets it.
        most_changes = 0 if usable[0].takes_models else None
        reduced, changes, refusals = reduce(read(source), most_changes, rounding=rounding)
        lowered = lower(reduced, usable)
        fallbacks = _fallbacks(lowered, strict)
        inputs = free_sizes(lowered.program, shapes)
        known = known_sizes(lowered.program, lowered.tensors, inputs)
        request = Request(sparsity, known.sizes, stated_patterns(reduced.graph))
        decided = decide(lowered.program, lowered.tensors, request, timer, advance)
        cache.save()
        settings = Settings(sparsity, rounding, tuple(tuple(size.values()) for size in inputs), strict)
        said = (*decided.notes(len(timer.disturbed)), *known.notes)
        report = _report(source, timer, settings, decided, said, (changes, refusals), fallbacks)
        advance(1.0, "writing")
        write_engine(output, decided.program, report.to_json(), used_tensors(decided))
    for line in report.lines():
        log.info("%s", line)
    return report


def _report(
    source: Path | onnx.ModelProto,
    timer: Timer,
    settings: Settings,
    decided: Decided,
    notes: tuple[str, ...],
    reduction: tuple[Sequence[Change], Sequence[graph.Refusal]],
    fallbacks: tuple[FallbackPart, ...],
) -> BuildReport:
    changes, refusals = reduction
    return BuildReport(
        version=REPORT_VERSION,
        model="(in memory)" if isinstance(source, onnx.ModelProto) else source.name,
        environment=timer.environment,
        settings=settings,
        accuracy_kept=not decided.pruned,
        notes=notes,
        layers=tuple(decided.layers),
        fusions=tuple(Fusion(change.rule, change.node) for change in changes),
        refusals=tuple(Refusal(refusal.rule, refusal.node, refusal.reason) for refusal in refusals),
        left_out=tuple(LeftOut(change.node, change.note) for change in changes if change.note),
        fallbacks=fallbacks,
    )


def _source(model: object) -> Path | onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, os.PathLike)) and isinstance(path := os.fspath(model), str):
        return Path(path)
    raise TypeError(
        "A model is the path of an ONNX file or an onnx.ModelProto, but it is of the type "
        f"{type(model).__name__}."
    )


def _check_options(sparsity: str, rounding: str, shapes: object) -> None:
    check_rounding(rounding)
    if sparsity not in SPARSITY_MODES:
        raise ValueError(f"The sparsity mode is one of {', '.join(SPARSITY_MODES)}, but it is {sparsity!r}.")
    if shapes is not None:
        whole_shapes(shapes)


def _fallbacks(lowered: Lowered, strict: bool) -> tuple[FallbackPart, ...]:
    """What other back ends than the first run, each node with its reason; raises BuildError where they may
    not or cannot run it."""
    parts = []
    for part in lowered.fallbacks:
        reason = " ".join(f"{node}: {why}." for node, why in zip(part.nodes, part.reasons, strict=True))
        parts.append(FallbackPart(part.step, part.backend.title, part.nodes, reason))
    problems = ["The build is strict"] if strict else [p.backend.unavailable() for p in lowered.fallbacks]
    problem = next((problem for problem in problems if problem), None)
    if parts and problem:
        listed = " ".join(part.reason for part in parts)
        raise BuildError(f"{problem}, but a part of the model has no native implementation: {listed}")
    return tuple(parts)
