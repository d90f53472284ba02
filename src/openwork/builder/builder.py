"""Building an engine: read, reduce, lower, time, pick, write, report."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from openwork.backends.cpu.packing import chosen_isa
from openwork.builder.eligibility import SPARSITY_MODES
from openwork.builder.layers import decide, used_tensors
from openwork.builder.lower import BuildError, Lowered, lower
from openwork.builder.tactics import Timer, environment
from openwork.builder.timing_cache import TimingCache, default_path
from openwork.engine.engine_file import write_engine
from openwork.engine.report import REPORT_VERSION, BuildReport, FallbackPart, Fusion, Refusal, Settings
from openwork.engine.sizes import free_sizes
from openwork.graph import lowerable, read, reduce
from openwork.graph.model import describe
from openwork.graph.stated_patterns import stated_patterns
from openwork.support.cores import physical_cores
from openwork.support.progress import progress_bar

log = logging.getLogger(__name__)


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

    sparsity : "on" (sparse where the weights hold a pattern and it is not slower), "off", or "force" (prune
        to 2:4 by magnitude first; accuracy is not kept).
    shapes : one size per free dimension of the inputs, in order of appearance; what the tactics are timed at.
        Default 1x32, 1x128 and 16x128.
    threads : what the tactics are timed with; default the physical cores that this process may use.
    strict : refuse a model that needs ONNX Runtime for a part of it.
    timing_cache : a JSON file; default one in the user's cache folder.
    progress : whether to show a bar on the standard error stream.
    Raises ValueError, in a sentence, for a model or an option that cannot be used, and OSError where the
    output cannot be written.
    """
    _check_options(sparsity, threads)
    source = model if isinstance(model, onnx.ModelProto) else Path(model)
    cache = TimingCache.open(Path(timing_cache) if timing_cache is not None else default_path())
    timer = Timer(environment(chosen_isa(None), threads or physical_cores()), cache)
    with progress_bar("Building", 1.0, progress) as advance:
        advance(0.0, "reading and fusing")
        reduced, changes, refusals = reduce(read(source))
        lowered = lower(reduced)
        fallbacks = _fallbacks(lowered, {describe(node): why for node, why in lowerable(reduced)}, strict)
        sizes = free_sizes(lowered.program, shapes)
        stated = stated_patterns(reduced.graph)
        decided = decide(lowered.program, lowered.tensors, sparsity, sizes, timer, advance, stated)
        cache.save()
        report = BuildReport(
            REPORT_VERSION,
            "(in memory)" if isinstance(source, onnx.ModelProto) else source.name,
            timer.environment,
            Settings(sparsity, tuple(tuple(size.values()) for size in sizes), strict),
            not decided.pruned,
            decided.notes(len(timer.disturbed)),
            tuple(decided.layers),
            tuple(Fusion(change.rule, change.node) for change in changes),
            tuple(Refusal(refusal.rule, refusal.node, refusal.reason) for refusal in refusals),
            fallbacks,
        )
        advance(1.0, "writing")
        write_engine(output, decided.program, report.to_json(), used_tensors(decided))
    for line in report.lines():
        log.info("%s", line)
    return report


def _check_options(sparsity: str, threads: int | None) -> None:
    if sparsity not in SPARSITY_MODES:
        raise ValueError(f"The sparsity mode is one of {', '.join(SPARSITY_MODES)}, but it is {sparsity!r}.")
    if threads is not None and threads < 1:
        raise ValueError(f"The number of threads is at least 1, but it is {threads}.")


def _fallbacks(lowered: Lowered, reasons: Mapping[str, str], strict: bool) -> tuple[FallbackPart, ...]:
    """What ONNX Runtime runs, each node with its reason; raises BuildError where it may not or cannot run
    it."""
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
