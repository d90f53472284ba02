"""The networks as ONNX files and as engines, and the peers that run the same dense file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from numpy.typing import NDArray

import openwork
from openwork.export import ExportOptions, export
from openwork.models.unet import UNetConfig

from .networks import Painter
from .settings import FOLD, SIDE, TEXT

Floats = NDArray[np.float32]
Call = Callable[[Floats, NDArray[np.int64], Floats], Floats]
"""The noise in folded pictures [B, C, H, W] of times i64 [B] with embedded captions f32 [B, L, context]."""
OPTIONS = ExportOptions(output_names=("noise",), opset=20)
PRECISIONS = ("fp32", "bf16")
BATCHES = (2, 16)
"""Pictures of one call: one, with and without its caption, and eight."""


def example_inputs(config: UNetConfig, batch: int = 2) -> dict[str, torch.Tensor]:
    """Random inputs of the UNet, by their names."""
    side = SIDE // FOLD
    return {
        "images": torch.randn(batch, config.channels, side, side),
        "times": torch.arange(batch),
        "text": torch.randn(batch, TEXT.length, config.context),
    }


def export_unet(painter: Painter, path: Path) -> Path:
    """The painter's UNet as ONNX, zeros checked where it is pruned."""
    return export(painter.unet, example_inputs(painter.unet.config), path, OPTIONS)


def build(source: Path, target: Path, precision: str, threads: int) -> None:
    """An engine of an exported UNet, timed at BATCHES."""
    shapes = [[batch] for batch in BATCHES]
    openwork.build(source, target, precision=precision, shapes=shapes, threads=threads, native="force")


def with_openwork(path: Path, threads: int) -> Call:
    """An engine file in openwork."""
    engine = openwork.load(path, threads=threads)
    return lambda images, times, text: engine.run({"images": images, "times": times, "text": text})["noise"]


def with_onnxruntime(path: Path, threads: int) -> Call:
    """A file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Floats, times: NDArray[np.int64], text: Floats) -> Floats:
        made: Floats = session.run(None, {"images": images, "times": times, "text": text})[0]
        return made

    return run


def with_openvino(path: Path, threads: int, precision: str) -> Call:
    """A file in OpenVINO, its inference in the precision that is named."""
    core = openvino.Core()
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(core.read_model(path), "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})
    names = {port.get_any_name(): port for port in compiled.inputs}

    def run(images: Floats, times: NDArray[np.int64], text: Floats) -> Floats:
        given: Mapping[Any, Any] = {names["images"]: images, names["times"]: times, names["text"]: text}
        return np.asarray(compiled(given)[compiled.output(0)])

    return run
