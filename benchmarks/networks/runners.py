"""Who runs a network: this engine, ONNX Runtime, OpenVINO, and the settings each of them may win with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import openwork
from benchmarks.networks.inputs import Feed

OURS, ORT, OPENVINO = "openwork", "onnxruntime", "openvino"
Array = np.ndarray


@dataclass(frozen=True)
class Runner:
    """A network ready to run in an engine. call: one inference of what it was made with. scores: of any
    inputs of that shape. setting: how it was set up, in its own words. note: what ran where, if known.
    """

    engine: str
    setting: str
    call: Callable[[], object]
    scores: Callable[[Feed], Array]
    note: str = ""


def ours(path: Path, feed: Feed, threads: int, native: str | None) -> Runner:
    """This engine, built for the shape of `feed`. Raises ValueError where the build fails."""
    built, cache = path.with_suffix(".engine"), path.parent / "timings.json"
    report = openwork.build(path, built, threads=threads, native=native, timing_cache=cache, progress=False)
    engine = openwork.load(built, threads=threads)
    (output,) = engine.run(feed)
    left = sum(len(part.nodes) for part in report.fallbacks)
    steps = len(report.layers)
    ran = f"{steps} products, {left} nodes in ONNX Runtime"
    return Runner(
        OURS,
        f"native={native or os.environ.get('OPENWORK_NATIVE', 'on')}",
        lambda: engine.run(feed),
        lambda given: engine.run(given)[output],
        "whole in ONNX Runtime" if left and not steps else ran,
    )


def onnxruntime(path: Path, feed: Feed, threads: int) -> Iterator[Runner]:
    """ONNX Runtime with each level of optimization that may be its best, its threads spinning."""
    import onnxruntime as ort

    for name in ("ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED"):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, name)
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Threads spin within a run, and stop after it, to leave the cores to the next runner.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        yield Runner(ORT, name.removeprefix("ORT_ENABLE_").lower(), *_bound(session, feed))


def exact(path: Path, feed: Feed) -> Runner:
    """ONNX Runtime without optimizations: what the file says, node after node."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Runner(ORT, "no optimizations", *_bound(session, feed))


def _bound(session: Any, feed: Feed) -> tuple[Callable[[], object], Callable[[Array], Array]]:
    import onnxruntime as ort

    def scores(given: Feed) -> Array:
        found: Array = session.run(None, given)[0]
        return found

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    value = ort.OrtValue.ortvalue_from_numpy(scores(feed))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, value)
    return (lambda: session.run_with_iobinding(binding)), scores


def openvino(path: Path, feed: Feed, threads: int) -> Iterator[Runner]:
    """OpenVINO with each hint, in FP32 where the file is float, on as many threads."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    for hint in ("LATENCY", "THROUGHPUT"):
        settings = {
            "PERFORMANCE_HINT": hint,
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        _give(request, feed)
        yield Runner(OPENVINO, hint.lower(), request.infer, _answer(request, feed))


def _give(request: Any, feed: Feed) -> None:
    import openvino as ov

    for name, array in feed.items():
        request.set_tensor(name, ov.Tensor(array, True))


def _answer(request: Any, feed: Feed) -> Callable[[Feed], Array]:
    def scores(given: Feed) -> Array:
        _give(request, given)
        request.infer()
        found: Array = request.get_output_tensor().data.copy()
        _give(request, feed)
        return found

    return scores


def peers(path: Path, feed: Feed, threads: int) -> Iterator[Runner]:
    """Every setting of every engine that is installed."""
    yield from onnxruntime(path, feed, threads)
    if openvino_version() is not None:
        yield from openvino(path, feed, threads)


def openvino_version() -> str | None:
    """The installed version; None where there is none."""
    try:
        return metadata.version(OPENVINO)
    except metadata.PackageNotFoundError:
        return None
