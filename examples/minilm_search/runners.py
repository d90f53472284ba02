"""Everything that can turn tokens into embeddings, behind one interface."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino

import openwork

from .texts import FloatArray, IntArray, Run

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"


@dataclass(frozen=True)
class Runner:
    """A model ready to run. name: of the engine and its arithmetic. settings: how it was set up, in words."""

    name: str
    settings: str
    run: Run
    file: Path

    @property
    def bytes(self) -> int:
        """Size of the model on disk."""
        weights = self.file.with_suffix(".bin")
        parts = [self.file, weights] if self.file.suffix == ".xml" else [self.file]
        return sum(part.stat().st_size for part in parts)


def with_openwork(name: str, path: Path, threads: int) -> Runner:
    """An engine file in openwork."""
    engine = openwork.load(path, threads=threads)

    def run(input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        return engine.run({"input_ids": input_ids, "attention_mask": attention_mask})[OUTPUT]

    return Runner(name, f"{engine.isa}, {threads} threads", run, path)


def with_onnxruntime(name: str, path: Path, threads: int) -> Runner:
    """An ONNX file in ONNX Runtime, with all graph optimizations and spinning threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    # Threads spin within a run, which is fastest, and stop after it, to leave the cores to the next runner.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        values: FloatArray = session.run([OUTPUT], feed)[0]
        return values

    return Runner(name, f"all graph optimizations, {threads} threads", run, path)


def with_openvino(
    name: str, path: Path, threads: int, precision: str, shape: tuple[int, int] | None = None
) -> Runner:
    """A model in OpenVINO for latency. precision: of what is not INT8. shape: batch and length; None any."""
    core = openvino.Core()
    model = core.read_model(path)
    if shape is not None:
        model.reshape({name: list(shape) for name in INPUTS})
    request = core.compile_model(model, "CPU", _openvino_settings(threads, precision)).create_infer_request()

    def run(input_ids: IntArray, attention_mask: IntArray) -> FloatArray:
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        return np.asarray(request.infer(feed, share_inputs=True, share_outputs=True)[OUTPUT])

    fixed = "any shape" if shape is None else "fixed shape"
    return Runner(name, f"{precision}, {fixed}, latency hint, {threads} threads", run, path)


def _openvino_settings(threads: int, precision: str) -> Mapping[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": precision,
    }
