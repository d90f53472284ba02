"""Run in an environment that holds the wheel and its dependencies: builds and runs a small model's engine.

Prints one line, the versions it ran with, or fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import requires, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import openwork

FEATURES, CHANNELS = 64, 32
STEP = np.float32(2 / 127)
# Of u8 -> f32; the zero point is 128.
QUANTIZER = ["step", "zero"]


def weight() -> NDArray[np.int8]:
    """Random weights [64, 32], 2:4 along the first axis."""
    rng = np.random.default_rng(1)
    kept = rng.permuted(np.tile([True, True, False, False], (CHANNELS, FEATURES // 4, 1)), axis=-1)
    values = rng.integers(1, 128, (CHANNELS, FEATURES)) * kept.reshape(CHANNELS, FEATURES)
    return np.ascontiguousarray(values.T.astype(np.int8))


def model() -> onnx.ModelProto:
    """x f32 [batch, 64] -> Q/DQ -> INT8 product -> Q/DQ -> Sin, which has no native step -> y f32."""
    constants = {"step": STEP, "zero": np.uint8(128), "w": weight(), "w_scale": np.float32(1e-3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *QUANTIZER], ["x_u8"]),
        helper.make_node("DequantizeLinear", ["x_u8", *QUANTIZER], ["x_f32"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale"], ["w_f32"]),
        helper.make_node("MatMul", ["x_f32", "w_f32"], ["product"], "product"),
        helper.make_node("QuantizeLinear", ["product", *QUANTIZER], ["product_u8"]),
        helper.make_node("DequantizeLinear", ["product_u8", *QUANTIZER], ["product_f32"]),
        helper.make_node("Sin", ["product_f32"], ["y"], "sine"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CHANNELS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def try_the_engine(source: Path, engine: Path) -> None:
    """It has a native sparse layer and a fallback step, and answers as ONNX Runtime does."""
    timings = engine.with_name("timings.json")
    # Native by request: timing decides otherwise, and so small a model gains nothing.
    options = {"shapes": [(4,)], "native": "force", "timing_cache": timings, "progress": False}
    report = openwork.build(source, engine, **options)
    assert [layer.pattern for layer in report.layers] == ["2:4"], report.layers
    assert len(report.fallbacks) == 1, report.fallbacks
    x = np.random.default_rng(2).uniform(-1, 1, (4, FEATURES)).astype(np.float32)
    found = openwork.load(engine).run({"x": x})["y"]
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["y"], {"x": x})
    assert np.ptp(expected) > 20 * STEP, "The model's answers are too much alike to tell a right one."
    # The sines of the same integers, or at a tie of neighbours; the sine's slope is at most 1.
    assert np.abs(found - expected).max() <= 1.001 * STEP, np.abs(found - expected).max()


def try_the_command(engine: Path) -> None:
    """The command `openwork` was installed and shows the engine."""
    command = [Path(sys.executable).with_name("openwork"), "inspect", engine]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "2:4" in shown, shown


def main() -> None:
    assert "torch" not in sys.modules, "import openwork imported torch."
    assert find_spec("torch") is None, "torch was installed although the wheel needs none."
    assert files("openwork").joinpath("py.typed").is_file()
    with tempfile.TemporaryDirectory() as folder:
        source, engine = Path(folder, "small.onnx"), Path(folder, "small.engine")
        onnx.save(model(), source)
        try_the_engine(source, engine)
        try_the_command(engine)
    own = [text.partition(">")[0] for text in requires("openwork") or () if "extra" not in text]
    print(", ".join(f"{name} {version(name)}" for name in own))


if __name__ == "__main__":
    main()
