"""The engines that openwork is compared with: each runs one layer and says which kernels it took."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx

from . import onnx_layers
from .problem import Array, Problem, from_bf16, to_bf16
from .shapes import Convolution


@dataclass(frozen=True)
class Prepared:
    """A layer ready to run in an engine.

    run : one inference from `x`, whose contents may be replaced, into the engine's own output.
    output : the last result, channels last, u8 or f32. kernels : what the engine runs, in its own words.
    doubt : a sentence where this is not the type that was asked for, or more than the layer; else None.
    """

    run: Callable[[], object]
    x: Array
    output: Callable[[], Array]
    kernels: str
    doubt: str | None


class Peer(Protocol):
    """An engine. name: its distribution's."""

    name: str

    def prepare(self, problem: Problem, threads: int) -> Prepared | str:
        """The layer, or a sentence that says why this engine has none."""
        ...


class OnnxRuntime:
    """ONNX Runtime on the CPU with all graph optimizations."""

    name = "onnxruntime"

    def prepare(self, problem: Problem, threads: int) -> Prepared | str:
        import onnxruntime

        if problem.type == "bf16":
            return "ONNX Runtime has no BF16 products on this kind of CPU."
        # Float convolutions are NCHW there, and the blocked layout that all optimizations would bring is a
        # detour around a single layer.
        nchw = problem.type == "fp32" and isinstance(problem.layer.shape, Convolution)
        levels = onnxruntime.GraphOptimizationLevel
        options = _session_options(threads, levels.ORT_ENABLE_EXTENDED if nchw else levels.ORT_ENABLE_ALL)
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            model = onnx_layers.model(problem, nchw).SerializeToString()
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            kernels = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
        x = (problem.x.transpose(onnx_layers.TO_NCHW) if nchw else problem.x).copy(order="C")
        y = session.run(None, {"x": x})[0]
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(y)
        binding.bind_ortvalue_output("y", value)

        def output() -> Array:
            found: Array = value.numpy()
            return found.transpose(onnx_layers.TO_NHWC) if nchw else found

        doubt = _doubt(problem, kernels)
        return Prepared(lambda: session.run_with_iobinding(binding), x, output, "+".join(kernels), doubt)


def _session_options(threads: int, level: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads spin within a run, which is fastest, and stop after it, to leave the cores to the next runner.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _doubt(problem: Problem, kernels: list[str]) -> str | None:
    wanted = ("QGemm", "QLinearMatMul", "QLinearConv") if problem.type == "int8" else ("Gemm", "Conv")
    if len(kernels) == 1 and kernels[0] in wanted:
        return None
    return f"ONNX Runtime runs {'+'.join(kernels)} and not one of {', '.join(wanted)} alone."


class OpenVino:
    """OpenVINO on the CPU, tuned for latency."""

    name = "openvino"

    def prepare(self, problem: Problem, threads: int) -> Prepared | str:
        import openvino

        core = openvino.Core()
        model = core.read_model(onnx_layers.model(problem).SerializeToString())
        bf16 = problem.type == "bf16"
        if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "OpenVINO has no BF16 products on this CPU."
        compiled = core.compile_model(model, "CPU", _settings(threads, "bf16" if bf16 else "f32"))
        request = compiled.create_infer_request()
        x = to_bf16(problem.x) if bf16 else problem.x.copy()
        shared = (x, openvino.Shape(x.shape), openvino.Type.bf16) if bf16 else (x, True)
        request.set_input_tensor(openvino.Tensor(*shared))

        def output() -> Array:
            found: Array = request.get_output_tensor().data
            return from_bf16(found.view(np.uint16)) if bf16 else found

        kernels = _executed(compiled)
        marks = {"int8": "_I8", "bf16": "_bf16", "fp32": "_f32"}
        sure = len(kernels) == 1 and kernels[0].endswith(marks[problem.type])
        doubt = None if sure else f"OpenVINO runs {'+'.join(kernels)}, not one kernel of {problem.type}."
        return Prepared(request.infer, x, output, "+".join(kernels), doubt)


def _settings(threads: int, precision: str) -> dict[str, str]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": precision,
    }


# Nodes of an executed graph that do nothing at run time. A Reorder whose name says `reorder` only names the
# layout anew; one that says `jit` moves the data.
_IDLE = ("Input", "Output", "Const")


def _executed(compiled: Any) -> list[str]:
    """The kernels of an executed graph, those of constants excepted."""
    kernels = []
    constant: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(getattr(value, "value", value)) for key, value in node.get_rt_info().items()}
        kind, primitive = info["layerType"], info["primitiveType"]
        sources = [node.input_value(i).get_node().get_friendly_name() for i in range(node.get_input_size())]
        if kind == "Const" or (sources and constant.issuperset(sources)):
            constant.add(node.get_friendly_name())
        elif kind not in _IDLE and not (kind == "Reorder" and primitive.startswith("reorder")):
            kernels.append(primitive)
    return kernels


def installed() -> tuple[list[Peer], list[str]]:
    """The engines that are installed, and a sentence for each that is not."""
    peers: list[Peer] = []
    missing = []
    for peer in (OnnxRuntime(), OpenVino()):
        try:
            metadata.version(peer.name)
            peers.append(peer)
        except metadata.PackageNotFoundError:
            missing.append(
                f"{peer.name} is not installed: its column stays empty ('pip install {peer.name}')."
            )
    return peers, missing
