"""Building an engine: read, reduce, lower, time, pick, write, report."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import onnx

from openwork.backends.registry import backends as chosen_backends
from openwork.backends.target import choose_target, environment
from openwork.builder.choosing import Chooser, Chosen
from openwork.builder.draft import Order, Source, make_draft
from openwork.builder.options import check_options, native_mode, precision_of
from openwork.builder.tactics import Timer
from openwork.builder.timing_cache import TimingCache, default_path
from openwork.engine.engine_file import write_engine
from openwork.engine.report import REPORT_VERSION, BuildReport, Fusion, Settings
from openwork.support.files import keep_apart, output_file
from openwork.support.progress import Advance, progress_bar

log = logging.getLogger(__name__)

_DRAFTED = 0.9
"""How far a build is, of 1, when its first draft is made."""


def build(
    model: str | os.PathLike[str] | onnx.ModelProto,
    output: str | os.PathLike[str],
    *,
    sparsity: str = "on",
    rounding: str = "exact",
    precision: str | None = None,
    shapes: Sequence[Sequence[int]] | None = None,
    threads: int | None = None,
    strict: bool = False,
    native: str | None = None,
    verify: bool = True,
    timing_cache: str | os.PathLike[str] | None = None,
    backends: str | Sequence[str] | None = None,
    progress: bool = True,
) -> BuildReport:
    """Build an engine from an ONNX model and write it to `output`, whole or not at all.

    sparsity : "on" (sparse where the weights hold a pattern and it is not slower), "off", or "force" (prune
        to 2:4 by magnitude first; accuracy is not kept).
    rounding : "exact" (every quantizer of the model rounds and clamps as ONNX Runtime does), or "relaxed"
        (roundings between float operators may be left out, clamps stay; the report lists what was left out).
    precision : what the float products of the model become: "fp32" (as the model has them; the default),
        "bf16" (BF16 weights and inputs, sums in FP32, of each layer where that is faster; the report says of
        which), or "int8" (for a model that is quantized already: one that is not is refused).
    shapes : one size per free dimension of the inputs, in order of appearance; what the tactics are timed at.
        Default 1x32, 1x128 and 16x128; of images with free sizes 224x224.
    threads : what the tactics are timed with; default the physical cores that this process may use.
    strict : refuse a model that needs more than the first back end.
    native : "on" (native steps where the whole engine gains by them: it is timed beside the whole model in
        ONNX Runtime at these shapes and threads, and is not slower), "off" (all in ONNX Runtime), or "force"
        (native steps wherever there are any). Default what OPENWORK_NATIVE says, or "on".
    verify : run the engine once on samples, and compare it with the model in ONNX Runtime; what differs is
        left to ONNX Runtime, with an error in the log and a note in the report.
    backends : names of the back ends that may run parts of the model, the one to ask first in front; default
        all, "cpu" first, then "onnxruntime"; one name may stand alone.
    timing_cache : a JSON file; default one in the user's cache folder.
    progress : whether to show a bar on the standard error stream.
    Raises ValueError or TypeError, in a sentence, for a model or an option that cannot be used, and OSError
    where the output cannot be written; both before anything is timed.
    """
    check_options(sparsity, rounding, shapes, strict=strict, verify=verify)
    mode, source, kind = native_mode(native), _source(model), precision_of(precision)
    output_file(output)
    cache = TimingCache.open(default_path()) if timing_cache is None else TimingCache.at(timing_cache)
    keep_apart((output, timing_cache), () if isinstance(source, onnx.ModelProto) else (source,))
    target = choose_target(None, threads)
    timer = Timer(target, environment(target), cache)
    usable = chosen_backends(backends)
    order = Order(
        source=source,
        sparsity=sparsity,
        rounding=rounding,
        precision=kind,
        shapes=shapes,
        strict=strict,
        backends=usable,
    )
    with progress_bar("Building", 1.0, progress) as advance:
        advance(0.0, "reading and fusing")
        chooser = _chooser(order, timer, advance, mode, verify)
        chosen = chooser.choose()
        cache.save()
        settings = Settings(sparsity, rounding, kind, mode, verify, chosen.draft.feeds, strict)
        report = _report(source, timer, settings, chosen)
        advance(1.0, "writing")
        decided = chosen.draft.decided
        write_engine(output, decided.program, report.to_json(), decided.tensors, chooser.confirm)
    for line in report.lines():
        log.info("%s", line)
    return report


def _chooser(order: Order, timer: Timer, advance: Advance, native: str, verify: bool) -> Chooser:
    drafts = itertools.count()
    others = [b for b in order.backends if b.takes_models and b.unavailable() is None]
    return Chooser(
        order,
        lambda keep, like: make_draft(order, timer, _scaled(advance, next(drafts)), keep, like),
        timer.target,
        lambda note: advance(_DRAFTED, note),
        native=native,
        verify=verify,
        may_fall_back=bool(others) and not order.strict,
    )


def _scaled(advance: Advance, number: int) -> Advance:
    """The progress of a draft within the build's: the products of all but the first were timed before."""
    return lambda completed, note="": advance(_DRAFTED * (1.0 if number else completed), note)


def _report(source: Source, timer: Timer, settings: Settings, chosen: Chosen) -> BuildReport:
    draft, decided = chosen.draft, chosen.draft.decided
    return BuildReport(
        version=REPORT_VERSION,
        model="(in memory)" if isinstance(source, onnx.ModelProto) else source.name,
        environment=timer.environment,
        settings=settings,
        accuracy_kept=not decided.pruned,
        notes=(*decided.notes(len(timer.disturbed)), *draft.notes, *chosen.notes),
        layers=tuple(decided.layers),
        fusions=tuple(Fusion(change.rule, change.node) for change in draft.changes),
        refusals=draft.stated_refusals,
        left_out=draft.left_out,
        fallbacks=draft.fallbacks,
        whole=chosen.whole,
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
