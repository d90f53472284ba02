"""Models that ONNX Runtime's quantize_dynamic wrote, as engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

import openwork
from engine_samples import pruned
from openwork import _native

WIDTH, HIDDEN = 64, 96


def network(folder: Path, pattern: str | None = None) -> Path:
    """x -> two products of x, one behind a relu, their sum through a third; FP32."""
    rng = np.random.default_rng(0)

    def weight(rows: int, columns: int) -> np.ndarray:
        drawn = rng.normal(size=(rows, columns)).astype(np.float32)
        return (drawn if pattern is None else pruned(drawn, pattern).astype(np.float32)).T

    arrays = {"a": weight(HIDDEN, WIDTH), "b": weight(HIDDEN, WIDTH), "c": weight(WIDTH, HIDDEN)}
    arrays["bias"] = rng.normal(size=HIDDEN).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["left"], "left"),
        helper.make_node("MatMul", ["x", "b"], ["right"], "right"),
        helper.make_node("Add", ["right", "bias"], ["biased"], "bias"),
        helper.make_node("Relu", ["biased"], ["active"], "active"),
        helper.make_node("Add", ["left", "active"], ["sum"], "sum"),
        helper.make_node("MatMul", ["sum", "c"], ["y"], "last"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", WIDTH]) for n in ("x", "y")]
    stored = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "network", ports[:1], ports[1:], stored)
    path = folder / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def quantized(folder: Path, pattern: str | None = None, **options: object) -> Path:
    path = folder / "dynamic.onnx"
    quantize_dynamic(network(folder, pattern), path, **options)
    return path


def engine_of(path: Path, threads: int = 1) -> tuple[openwork.BuildReport, openwork.Engine]:
    target = path.with_suffix(".engine")
    report = openwork.build(
        path,
        target,
        shapes=[[8]],
        native="force",
        strict=True,
        threads=threads,
        timing_cache=path.parent / "timings.json",
        progress=False,
    )
    return report, openwork.load(target, threads=threads)


@pytest.mark.parametrize(
    "options",
    [{}, {"per_channel": True}, {"weight_type": QuantType.QUInt8}, {"reduce_range": True}],
    ids=["default", "by channel", "unsigned", "seven bits"],
)
def test_they_run_native_and_give_what_onnx_runtime_gives(tmp_path: Path, options: dict[str, object]) -> None:
    path = quantized(tmp_path, **options)
    _, engine = engine_of(path, threads=2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (1, 7, 130):
        x = np.random.default_rng(rows).normal(size=(rows, WIDTH)).astype(np.float32)
        ours, theirs = engine.run({"x": x})["y"], session.run(None, {"x": x})[0]
        # A number within rounding of a tie may be one step of the quantizer off.
        step = np.abs(theirs).max() / 255
        assert np.abs(ours - theirs).max() <= 2 * step


def test_sparse_weights_are_found(tmp_path: Path) -> None:
    report, engine = engine_of(quantized(tmp_path, "2:4"))
    assert {layer.pattern for layer in report.layers} == {"2:4"}
    assert all(layer.eligible and layer.element == "i8" and layer.output == "f32" for layer in report.layers)
    x = np.random.default_rng(3).normal(size=(8, WIDTH)).astype(np.float32)
    assert np.isfinite(engine.run({"x": x})["y"]).all()


def test_what_two_products_read_is_quantized_once(tmp_path: Path) -> None:
    _, engine = engine_of(quantized(tmp_path))
    x = np.random.default_rng(3).normal(size=(8, WIDTH)).astype(np.float32)
    steps = [step.name for step in engine.profile({"x": x}, repeats=1)]
    assert sum(name.startswith("quantize_by_range") for name in steps) == 2


@pytest.mark.parametrize("isa", _native.isas())
def test_each_run_has_a_range_of_its_own(tmp_path: Path, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quantized(tmp_path)
    engine_of(path)
    monkeypatch.setenv("OPENWORK_ISA", isa)
    engine = openwork.load(path.with_suffix(".engine"), threads=2)
    x = np.random.default_rng(4).normal(size=(40, WIDTH)).astype(np.float32)
    first = engine.run({"x": x})["y"]
    assert not np.array_equal(first, engine.run({"x": 100 * x})["y"])
    assert np.array_equal(first, engine.run({"x": x})["y"])
    rows = [engine.run({"x": x[i : i + 1]})["y"] for i in range(3)]
    assert not np.array_equal(np.concatenate(rows), first[:3])
