"""A build runs what it wrote, beside the model in ONNX Runtime, before it succeeds."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph_models import Builder, runtime
from openwork import build, load
from openwork.builder import choosing, draft, layers, lower
from openwork.builder.differences import TOLERANCE, difference
from openwork.builder.lower import BuildError
from openwork.engine.operators import Form
from openwork.engine.program import FALLBACK, Program
from openwork.graph.model import ModelError
from openwork.runtime.engine import Engine

WIDTH = 16


def network() -> onnx.ModelProto:
    """Three products with LeakyRelu between them, of free rows."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, (WIDTH, WIDTH)).astype(np.float32), f"w{i}")
        for i in range(3)
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], "first"),
        helper.make_node("LeakyRelu", ["a"], ["b"], "bend", alpha=0.1),
        helper.make_node("MatMul", ["b", "w1"], ["c"], "second"),
        helper.make_node("Tanh", ["c"], ["d"], "squash"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], "third"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


@pytest.fixture
def bent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect: every LeakyRelu comes out with another slope."""
    plain = lower._plain

    def other_slope(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: 0.9 if name == "alpha" else value for name, value in plain(values).items()}

    monkeypatch.setattr(lower, "_plain", other_slope)


def built(folder: Path, model: onnx.ModelProto, **options: Any) -> Path:
    path = folder / "m.engine"
    build(model, path, shapes=[[4]], timing_cache=folder / "t.json", progress=False, threads=1, **options)
    return path


def outputs(path: Path, model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """What the engine makes, and what ONNX Runtime makes."""
    x = np.random.default_rng(5).normal(0, 1, (4, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected: np.ndarray = session.run(None, {"x": x})[0]
    return load(path, threads=1).run({"x": x})["y"], expected


@pytest.mark.usefixtures("bent")
def test_a_wrong_step_is_named_and_left_to_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        path = built(tmp_path, network())
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    report = load(path).report
    (note,) = (note for note in report.notes if "differs from the model in ONNX Runtime" in note)
    assert "first in the step 'first'" in note
    assert "first in the step 'first'" in caplog.text
    left = {node for part in report.fallbacks for node in part.nodes}
    assert left == {"MatMul 'first'", "LeakyRelu 'bend'"}
    assert [layer.name for layer in report.layers] == ["second", "third"]


@pytest.mark.usefixtures("bent")
def test_where_nothing_may_fall_back_it_is_an_error_that_keeps_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"the output 'y' is off by .*, first in the step 'first'\. Let ONNX"
    ):
        built(tmp_path, network(), strict=True)
    with pytest.raises(BuildError, match="first in the step 'first'"):
        built(tmp_path, network(), backends="cpu")
    assert not list(tmp_path.glob("*.engine"))


def failing(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, after: int = 0) -> None:
    """A defect: a function fails with what nobody wrote for users, from some call on, where it works on
    native operators."""
    plain, calls = getattr(module, name), itertools.count()

    def fails(*given: Any, **named: Any) -> Any:
        natively = name != "reduce" or given[1] is None
        if natively and next(calls) >= after:
            raise KeyError("lost")
        return plain(*given, **named)

    monkeypatch.setattr(module, name, fails)


DEFECTS = [
    (draft, "reduce", "Making native operators of the model"),
    (lower, "form_of", "Making steps of the model"),
    (layers, "problem_of", "Deciding how the model's products run"),
]


@pytest.mark.parametrize(("module", "name", "doing"), DEFECTS)
def test_a_draft_that_cannot_be_made_leaves_the_model_to_onnx_runtime(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: ModuleType,
    name: str,
    doing: str,
) -> None:
    failing(monkeypatch, module, name)
    with caplog.at_level(logging.WARNING):
        path = built(tmp_path, network())
    said = f"{doing} failed with KeyError \"'lost'\". ONNX Runtime runs the whole model"
    assert said in caplog.text
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    report = load(path).report
    assert [note for note in report.notes if note.startswith(said)]
    assert "Please report this failure with the model." in report.notes
    assert not report.layers


def test_a_model_that_nobody_runs_is_not_to_be_reported(tmp_path: Path) -> None:
    """Its fault is the model's own: a shape of other elements than there are."""
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["b", 16])
    y = b.add("Reshape", b.add("Relu", x), b.integers(0, 7))
    path = built(tmp_path, b.model(y=y))
    notes = load(path).report.notes
    assert any("was not compared with ONNX Runtime: ONNX Runtime does not run the model" in n for n in notes)
    assert not any("report" in note for note in notes)


@pytest.mark.parametrize(("module", "name", "doing"), DEFECTS)
@pytest.mark.parametrize("options", [{"strict": True}, {"backends": "cpu"}])
def test_where_nothing_may_fall_back_a_defect_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    module: ModuleType,
    name: str,
    doing: str,
) -> None:
    failing(monkeypatch, module, name)
    with pytest.raises(BuildError, match=f"{doing} failed with KeyError .* please report this"):
        built(tmp_path, network(), **options)
    assert not list(tmp_path.glob("*.engine"))


def test_an_engine_that_fails_in_its_own_way_leaves_the_model_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = choosing.bound_engine

    def fails(program: Program, *given: Any) -> Engine:
        if any(step.op != FALLBACK for step in program.steps):
            raise IndexError("nowhere")
        return plain(program, *given)

    monkeypatch.setattr(choosing, "bound_engine", fails)
    path = built(tmp_path, network())
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    (note,) = (note for note in load(path).report.notes if "differs" in note)
    assert 'it does not run: IndexError "nowhere"' in note


@pytest.mark.usefixtures("bent")
def test_a_draft_that_was_to_mend_another_and_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, draft, "reduce", after=1)
    path = built(tmp_path, network())
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    assert any("Making native operators of the model failed" in note for note in load(path).report.notes)


def test_what_is_wrong_with_the_model_itself_is_said_as_it_is(tmp_path: Path) -> None:
    model = network()
    model.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        built(tmp_path, model)


@pytest.mark.usefixtures("bent")
def test_without_verification_nothing_is_compared(tmp_path: Path) -> None:
    made, expected = outputs(built(tmp_path, network(), verify=False), network())
    assert np.abs(made - expected).max() > 0.1


def pooled() -> onnx.ModelProto:
    """A convolution and a pool that keeps what hangs over the edge: 9 pixels become 5."""
    b = Builder(np.random.default_rng(2))
    x = b.input("x", ["batch", 4, 9, 9])
    made = b.add("Relu", b.add("Conv", x, b.normal(4, 4, 3, 3), pads=[1, 1, 1, 1]))
    pool = b.add("MaxPool", made, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    return b.model(y=pool)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect: every window loses what pads it on the right and at the bottom."""
    plain = lower.form_of

    def without_pads(node: ir.Node) -> Form:
        form = plain(node)
        if node.op_type != "MaxPool":
            return form
        return replace(form, attributes={**form.attributes, "pads": (0, 0, 0, 0)})

    monkeypatch.setattr(lower, "form_of", without_pads)


@pytest.mark.usefixtures("cut")
def test_an_output_of_another_shape_is_left_to_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, path = pooled(), tmp_path / "m.engine"
    with caplog.at_level(logging.ERROR):
        build(model, path, native="force", progress=False, timing_cache=tmp_path / "t.json", threads=1)
    x = np.random.default_rng(5).normal(0, 1, (3, 4, 9, 9)).astype(np.float32)
    expected = runtime(model, {"x": x})
    engine = load(path, threads=1)
    for name, array in engine.run({"x": x}).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)
    said = r"output 'y' has the shape \[batch, 4, 4, 4\], but ONNX Runtime makes \[2, 4, 5, 5\]"
    assert [note for note in engine.report.notes if re.search(said, note)]
    assert re.search(said, caplog.text)
    assert not engine.report.layers


@pytest.mark.usefixtures("cut")
def test_strict_refuses_outputs_of_another_shape(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(2))
    x = b.input("x", ["batch", 4, 9, 9])
    model = b.model(y=b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1))
    with pytest.raises(BuildError, match=r"the shape \[batch, 4, 4, 4\], but .* makes \[2, 4, 5, 5\]"):
        build(model, tmp_path / "m.engine", strict=True, progress=False, timing_cache=tmp_path / "t.json")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect: a product has one size of rows."""
    plain = lower._Lowering.declare

    def declare(lowering: Any, value: ir.Value) -> int:
        index = plain(lowering, value)
        if value.name == "x":
            lowering.dims.same(lowering.values[index].shape[0], 1)
        return index

    monkeypatch.setattr(lower._Lowering, "declare", declare)


@pytest.mark.usefixtures("narrow")
def test_sizes_that_native_steps_do_not_take_are_left_to_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = draft.lower

    def lowered(model: ir.Model, backends: Any) -> Any:
        if any(node.domain for node in model.graph):
            return plain(model, backends)
        with monkeypatch.context() as patch:
            patch.setattr(lower.Dims, "same", lambda *_: True)
            return plain(model, backends)

    monkeypatch.setattr(draft, "lower", lowered)
    path = tmp_path / "m.engine"
    build(network(), path, progress=False, timing_cache=tmp_path / "t.json", threads=1)
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)
    (note,) = (note for note in load(path).report.notes if "differs" in note)
    assert "the input 'x' takes [1, 16] alone, but ONNX Runtime takes [3, 16] too" in note


def test_sizes_that_the_model_needs_are_no_fault(tmp_path: Path) -> None:
    """The columns are free in the model's input, but its product wants sixteen."""
    model, path = network(), tmp_path / "m.engine"
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "columns"
    build(model, path, progress=False, timing_cache=tmp_path / "t.json", threads=1)
    engine = load(path, threads=1)
    assert engine.inputs[0].shape == ("rows", WIDTH)
    assert not [note for note in engine.report.notes if "ONNX Runtime" in note]
    assert len(engine.report.layers) == 3


def test_a_model_that_states_a_shape_which_does_not_hold_is_no_fault_of_its_native_steps(
    tmp_path: Path,
) -> None:
    model = network()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    report = load(built(tmp_path, model, native="force")).report
    assert not [note for note in report.notes if "ONNX Runtime" in note]
    assert len(report.layers) == 3


def test_a_right_engine_says_nothing(tmp_path: Path) -> None:
    path = built(tmp_path, network())
    made, expected = outputs(path, network())
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    report = load(path).report
    assert not [note for note in report.notes if "ONNX Runtime" in note]
    assert not report.fallbacks
    assert report.settings.verify


def test_an_engine_that_cannot_be_loaded_is_not_kept(tmp_path: Path) -> None:
    node = helper.make_node("ImageDecoder", ["x"], ["y"], "decode", pixel_format="RGB")
    ports = [
        helper.make_tensor_value_info("x", TensorProto.UINT8, ["bytes"]),
        helper.make_tensor_value_info("y", TensorProto.UINT8, ["h", "w", 3]),
    ]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path / "m.engine"
    path.write_bytes(b"what was there before")
    with pytest.raises(BuildError, match=r"cannot be loaded, so it was not kept: .*ImageDecoder\(20\)"):
        built(tmp_path, model)
    assert path.read_bytes() == b"what was there before"
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".json"] == ["m.engine"]


def test_random_numbers_cannot_be_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], "draw"),
        helper.make_node("Add", ["x", "r"], ["y"], "add"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    notes = load(built(tmp_path, model)).report.notes
    assert [note for note in notes if "the model draws random numbers" in note]


def test_samples_that_a_model_does_not_take_are_no_fault(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([3, -1]), "shape")
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], "fold")]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, "columns"]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [shape])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    path = tmp_path / "m.engine"
    report = build(model, path, shapes=[[2]], progress=False, timing_cache=tmp_path / "t.json")
    assert [note for note in report.notes if "was not compared with ONNX Runtime" in note]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(load(path).run({"x": x})["y"], x.reshape(3, 4))


@pytest.mark.parametrize(
    ("made", "expected", "why"),
    [
        (np.float32([1, 2, 3]), np.float32([1, 2, 3.1]), None),
        (np.float32([1, 2, 3]), np.float32([1, 2, 9]), "is off by"),
        (np.float32([1, 2, 3]), np.float32([[1, 2, 3]]), r"is float32 \[3\], but float32 \[1, 3\]"),
        (np.float32([1, np.nan, 3]), np.float32([1, 2, 3]), "is not finite"),
        (np.float32([1, 5, 3]), np.float32([1, np.inf, 3]), None),
        (np.uint8([100, 100]), np.uint8([101, 99]), None),
        (np.uint8([100, 100]), np.uint8([0, 255]), "is off by"),
        (np.array([1, 2]), np.array([1, 3]), "other elements"),
        (np.array([True]), np.array([False]), "other elements"),
        (np.array(["a"], object), np.array(["b"], object), "other elements"),
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), None),
    ],
)
def test_differences(made: np.ndarray, expected: np.ndarray, why: str | None) -> None:
    found = difference(made, expected, TOLERANCE)
    assert (found is None) == (why is None)
    if why is not None and found is not None:
        assert re.search(why, found)


def attending(padded_where: float) -> onnx.ModelProto:
    """Attention with a float mask that drops keys where it is not 0, which normal numbers never are."""
    b = Builder(np.random.default_rng(3))
    x, mask = b.input("x", ["batch", "length", 8]), b.input("mask", ["batch", "length"])
    padded = b.add("Cast", b.add("Unsqueeze", mask, b.integers(1, 2)), to=TensorProto.BOOL)
    split = [b.add("Reshape", x, b.integers(0, 0, 2, 4)) for _ in range(3)]
    perms = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (b.add("Transpose", part, perm=perm) for part, perm in zip(split, perms, strict=True))
    scores = b.add("Where", padded, b.number(padded_where), b.add("MatMul", q, k))
    mixed = b.add("MatMul", b.add("Softmax", scores, axis=-1), v)
    joined = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(0, 0, 8))
    return b.model(y=b.add("MatMul", b.add("Tanh", joined), b.normal(8, 8)))


def test_a_float_mask_is_not_fed_numbers_that_keep_nothing(tmp_path: Path) -> None:
    model = attending(float(np.finfo(np.float32).min))
    path = tmp_path / "m.engine"
    build(model, path, shapes=[[2, 5]], progress=False, timing_cache=tmp_path / "t.json", threads=1)
    engine = load(path, threads=1)
    assert [step.op for step in engine._program.steps].count("attention") == 1
    assert not [note for note in engine.report.notes if "differs" in note]


def test_a_table_of_few_positions_is_checked_with_few(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    positions = b.add(
        "Slice", b.constant(np.arange(8)[None]), b.integers(0), b.add("Shape", ids, start=1), b.integers(1)
    )
    words, places = b.normal(50, 16), b.normal(8, 16)
    summed = b.add("Add", b.add("Gather", words, ids), b.add("Gather", places, positions))
    model = b.model(y=b.add("LayerNormalization", summed, b.normal(16), b.normal(16)))
    path = tmp_path / "m.engine"
    build(model, path, progress=False, timing_cache=tmp_path / "t.json", threads=1)
    engine = load(path)
    assert [step.op for step in engine._program.steps] == ["embedding_sum", "layer_norm"]
    assert not [note for note in engine.report.notes if "not compared" in note]
