"""One cell of the table: a network of some inputs, by one exporter, at a number of threads."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import openwork
import openwork.graph
from benchmarks.architectures.networks import Network, Scale, Wrapped, example
from openwork.bench.latency import Options, measure, ratio
from openwork.quantization.float_onnx import quantize_onnx
from openwork.support.texts import first_line

EXPORTERS = ("legacy", "dynamo")
_CALIBRATED = 4
_BATCHES = (1, 2)
_CACHE = "timings.json"


class CellError(Exception):
    """A stage that did not go through, with what it said."""


@dataclass(frozen=True)
class Cell:
    """What was seen of one engine. cosine: to ONNX Runtime without optimizations, the least over the shapes.
    speed: how many times faster than ONNX Runtime on the same file, the least over the shapes. control: the
    same of a second session of ONNX Runtime, which shows what the machine's noise makes of a ratio of 1.
    """

    network: str
    exporter: str
    inputs: tuple[str, ...]
    threads: int
    cosine: float
    speed: float
    control: float
    native: int
    fallbacks: int
    kept: str


def export(network: Network, names: tuple[str, ...], exporter: str, folder: Path, scale: Scale) -> Path:
    """The network as an INT8 file: exported in FP32, then quantized as `openwork quantize` does.

    Raises CellError where the exporter or the quantizer fails.
    """
    torch.manual_seed(0)
    stem = f"{network.name}.{exporter}.{'-'.join(names)}"
    plain, quantized = folder / f"{stem}.onnx", folder / f"{stem}.int8.onnx"
    feed = example(names, 0)
    try:
        _export(Wrapped(network.make(scale), names).eval(), feed, exporter, plain)
    # torch's exporters raise what they happen to raise.
    except Exception as error:
        raise CellError(f"the exporter: {first_line(error)[:120]}") from error
    data = [{k: v.numpy() for k, v in example(names, seed).items()} for seed in range(_CALIBRATED)]
    try:
        quantize_onnx(plain, data).write(quantized)
    except ValueError as error:
        raise CellError(f"the quantizer: {first_line(error)[:120]}") from error
    return quantized


def _export(model: Wrapped, feed: dict[str, torch.Tensor], exporter: str, path: Path) -> None:
    axes = {
        name: {0: "batch"} if value.ndim == 4 else {0: "batch", 1: "length"} for name, value in feed.items()
    }
    free = tuple(dict.fromkeys(axes[name], torch.export.Dim.AUTO) for name in feed)
    ports = {"input_names": list(feed), "output_names": ["state"]}
    how: dict[str, Any] = (
        {"dynamo": False, "opset_version": 17, "dynamic_axes": axes}
        if exporter == "legacy"
        else {"dynamo": True, "opset_version": 18, "dynamic_shapes": (free,), "verbose": False}
    )
    # What the legacy exporter cannot write it prints whole.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(feed.values()), path, **how, **ports)


def cell(network: Network, exporter: str, names: tuple[str, ...], path: Path, threads: int) -> Cell:
    """Build, load, compare and time one engine; raises CellError where a stage fails."""
    engine_path, probe = path.with_suffix(".engine"), _session(path, threads)
    # An exporter drops an input that nothing reads.
    kept = {port.name for port in probe.get_inputs()}
    feeds = [{k: v.numpy() for k, v in example(names, 9, batch).items() if k in kept} for batch in _BATCHES]
    try:
        report = openwork.build(
            path,
            engine_path,
            threads=threads,
            shapes=_shapes(path, feeds),
            timing_cache=path.parent / _CACHE,
            progress=False,
        )
        engine = openwork.load(engine_path, threads=threads)
    except ValueError as error:
        raise CellError(f"the build: {first_line(error)[:120]}") from error
    plain = _session(path, threads, optimized=False)
    cosines = [_cosine(engine.run(feed)["state"], plain.run(["state"], feed)[0]) for feed in feeds]
    speeds, controls, control = [], [], _session(path, threads)
    for feed in feeds:
        runners = {
            "engine": partial(engine.run, feed),
            "ort": partial(probe.run, None, feed),
            "control": partial(control.run, None, feed),
        }
        how = Options(warm_up=0.05, duration=0.3, turn=0.02, settle=0.06, minimum_rounds=8)
        timings = measure(runners, how)
        speeds.append(ratio(timings["ort"], timings["engine"]))
        controls.append(ratio(timings["ort"], timings["control"]))
    nodes = sum(len(part.nodes) for part in report.fallbacks)
    kept = "ONNX Runtime" if not report.layers and report.fallbacks else "native"
    steps = len(engine._program.steps) - len(report.fallbacks)
    measured = min(cosines), min(speeds), min(controls)
    return Cell(network.name, exporter, names, threads, *measured, steps, nodes, kept)


def _shapes(path: Path, feeds: list[dict[str, np.ndarray]]) -> list[list[int]]:
    """What the engine's free dimensions are for each feed, in order of appearance."""
    model = openwork.graph.read(path)
    names: dict[str, tuple[str, int]] = {}
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int):
                names.setdefault(str(dim.value), (str(value.name), axis))
    return [[feed[name].shape[axis] for name, axis in names.values()] for feed in feeds]


def _session(path: Path, threads: int, optimized: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
