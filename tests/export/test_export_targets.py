"""Targets and the commands that go on from a file; the words are asserted whole, for they are pasted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from openwork.qdq.targets import HELP, TARGETS, FreeDimension, next_steps, parse_target


def write(path: Path, **shapes: list[int | str | None]) -> Path:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(
        [helper.make_node("Identity", [next(iter(shapes))], ["y"])], "g", inputs, outputs
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_tensorrt_10_and_11_differ(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", images=["batch", 3, 224, 224])
    ten, eleven, build, bench = lines(next_steps(path, "tensorrt"))
    shapes = "--minShapes=images:1x3x224x224 --optShapes=images:8x3x224x224 --maxShapes=images:32x3x224x224"
    common = f"trtexec --onnx={path} --saveEngine={tmp_path}/net.plan --sparsity=enable"
    assert ten == f"{common} --int8 --fp16 {shapes}"
    assert eleven == f"{common} {shapes}"
    assert build == f"openwork build {path} -o {tmp_path}/net.engine"
    assert bench == f"openwork bench {tmp_path}/net.engine"


def test_free_dimensions_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.onnx", ids=["batch", "length"], mask=["batch", "length"], table=[4, 5])
    line = lines(next_steps(path, "tensorrt", {"length": FreeDimension(8, 64, 256)}))[1]
    assert "--minShapes=ids:1x8,mask:1x8 " in line
    assert "--optShapes=ids:8x64,mask:8x64 " in line
    assert line.endswith("--maxShapes=ids:32x256,mask:32x256")
    with pytest.raises(
        ValueError,
        match="No input has a free dimension named 'width'; the free dimensions are: batch, length",
    ):
        next_steps(path, "tensorrt", {"width": FreeDimension()})
    with pytest.raises(ValueError, match=r"rise from the least .* but they are 4, 2, 8"):
        FreeDimension(4, 2, 8)


def test_fixed_shapes_need_no_flags(tmp_path: Path) -> None:
    text = next_steps(write(tmp_path / "fixed.onnx", x=[1, 4]), "tensorrt")
    assert "Shapes=" not in text


def test_a_path_with_spaces_can_be_pasted(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    text = next_steps(write(folder / "a b.onnx", x=[1, 4]), "tensorrt")
    assert f"'--onnx={folder}/a b.onnx'" in text


def test_the_snippet_for_onnx_runtime_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", x=["batch", 4])
    snippet = next_steps(path, "onnxruntime").split("\n\n")[0]
    feeds = "import numpy; feeds = {'x': numpy.ones((2, 4), numpy.float32)}"
    script = f"{feeds}\n{snippet}\nassert outputs[0].shape == (2, 4)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_targets_by_name() -> None:
    assert parse_target(" TensorRT ") is TARGETS["tensorrt"]
    assert parse_target("onnx-runtime") is TARGETS["onnxruntime"]
    with pytest.raises(ValueError, match="A target is 'tensorrt' or 'onnxruntime', but it is 'tflite'"):
        parse_target("tflite")
    assert HELP.startswith("tensorrt: symmetric s8")
    assert (TARGETS["tensorrt"].activation, TARGETS["onnxruntime"].activation) == ("s8", "u8")


def test_targets_need_no_torch() -> None:
    used = "import sys, openwork.qdq.targets as t; t.parse_target('tensorrt')"
    script = f"{used}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
