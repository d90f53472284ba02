"""Models as people have them: old and new opsets, odd names, every element type, scalars, sequences."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from openwork import build, load
from openwork.export import ExportOptions, export
from openwork.graph import ModelError
from openwork.runtime.engine import Engine

Port = tuple[str, int, Sequence[int | str | None]]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    tensors: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    ir_version: int = 9,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(array, name) for name, array in (tensors or {}).items()]
    infos = [[helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs)]
    if ir_version < 4:
        infos[0] += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in stored]
    graph = helper.make_graph(nodes, "g", *infos, stored)
    return helper.make_model(graph, ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)])


def engine_of(model: onnx.ModelProto | Path, folder: Path, **options: Any) -> Engine:
    path = folder / "m.engine"
    build(model, path, progress=False, timing_cache=folder / "t.json", threads=1, **options)
    return load(path, threads=1)


def agrees(model: onnx.ModelProto | Path, engine: Engine, feed: dict[str, np.ndarray]) -> None:
    """The engine gives what ONNX Runtime gives on the same file."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    made = engine.run(feed)
    for port, expected in zip(session.get_outputs(), session.run(None, feed), strict=True):
        assert made[port.name].dtype == expected.dtype
        assert made[port.name].shape == expected.shape
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(made[port.name], expected, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(made[port.name], expected)


FLOAT = TensorProto.FLOAT


class Bags(nn.Module):
    """Embedding bags of one column each, which torch's current exporter writes as loops over sequences."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(50, 16, mode="sum") for _ in range(count))
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        rows = sum(bag(ids[:, i : i + 1]) for i, bag in enumerate(self.bags))
        state: Tensor = self.head(rows)
        return state


@pytest.mark.parametrize("count", [1, 2])
def test_embedding_bags_of_the_current_exporter_keep_their_sequences(count: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, ids = Bags(count).eval(), torch.randint(0, 50, (8, count))
    path = tmp_path / "bags.onnx"
    export(model, {"ids": ids}, path, ExportOptions(exporter="dynamo"))
    engine = engine_of(path, tmp_path, shapes=[[8]])
    with torch.no_grad():
        expected = model(ids).numpy()
    (made,) = engine.run({"ids": ids.numpy()}).values()
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


OLD = {
    7: [helper.make_node("Clip", ["x"], ["c"], min=-0.5, max=0.5), helper.make_node("Dropout", ["c"], ["y"])],
    8: [
        helper.make_node("Slice", ["x"], ["s"], axes=[2], starts=[0], ends=[3]),
        helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ],
    9: [helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1])],
    10: [helper.make_node("TopK", ["x", "k"], ["y", "places"], axis=3)],
    11: [helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0]), helper.make_node("ReduceSum", ["u"], ["y"])],
    12: [helper.make_node("Softmax", ["x"], ["y"])],
}


@pytest.mark.parametrize("opset", OLD)
def test_old_opsets_mean_what_they_meant(opset: int, tmp_path: Path) -> None:
    nodes = [*OLD[opset], helper.make_node("Relu", ["y"], ["z"])]
    tensors = {"k": np.array([2])} if opset == 10 else {}
    ranks = {8: 4, 11: 5}
    last: Port = ("z", FLOAT, [None] * ranks.get(opset, 4))
    model = model_of(nodes, [("x", FLOAT, ["n", 3, 4, 5])], [last], tensors, opset, 8)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    agrees(model, engine_of(model, tmp_path), {"x": x})


def test_what_cannot_be_converted_runs_as_it_is_written(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "next"], ["total"]),
            helper.make_node("Identity", ["total"], ["seen"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("sum", "next")],
        [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("total", "seen")],
    )
    node = helper.make_node("Scan", ["", "start", "x"], ["end", "all"], "scan", body=body, num_scan_inputs=1)
    ports: list[Port] = [("start", FLOAT, [1, 2]), ("x", FLOAT, [1, 3, 2])]
    outs: list[Port] = [("end", FLOAT, [1, 2]), ("all", FLOAT, [1, 3, 2])]
    model = model_of([node], ports, outs, opset=8, ir_version=3)
    engine = engine_of(model, tmp_path)
    assert [note for note in engine.report.notes if "uses opset 8 and cannot be converted" in note]
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    agrees(model, engine, {"start": np.ones((1, 2), np.float32), "x": x})


def test_the_newest_opset_is_read(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    ports: list[Port] = [("x", FLOAT, ["n", 8])], [("y", FLOAT, ["n", 8])]  # type: ignore[assignment]
    model = model_of(nodes, *ports, {"w": weight}, newest, 11)  # type: ignore[arg-type]
    engine = engine_of(model, tmp_path)
    assert [step.op for step in engine._program.steps] == ["linear"]
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(engine.run({"x": x})["y"], np.maximum(x @ weight, 0), rtol=1e-5, atol=1e-5)


def test_initializers_that_are_inputs_need_not_be_fed(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["n", 8])],
        [("y", FLOAT, ["n", 4])],
        {"w": weight},
        9,
        3,
    )
    engine = engine_of(model, tmp_path)
    assert [port.name for port in engine.inputs] == ["x"]
    agrees(model, engine, {"x": np.ones((2, 8), np.float32)})


@pytest.mark.parametrize(
    "name", ["batch size", "DynamicDimension.0", "2*s0", "ü", "n" * 300, "class", "?", "a\"b'c\\"]
)
def test_dimensions_and_nodes_of_any_name(name: str, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", [f"x{name}", "w"], ["a"], f"{name}1"),
        helper.make_node("Elu", ["a"], ["b"], f"{name}2"),
        helper.make_node("MatMul", ["b", "w"], [f"y{name}"], name),
    ]
    model = model_of(nodes, [(f"x{name}", FLOAT, [name, 8])], [(f"y{name}", FLOAT, [name, 8])], {"w": weight})
    engine = engine_of(model, tmp_path)
    (dimension,) = engine.free_dimensions
    assert dimension.isidentifier()
    assert len(dimension) <= 64
    agrees(model, engine, {f"x{name}": np.ones((3, 8), np.float32)})


def test_negative_sizes_are_free(tmp_path: Path) -> None:
    weight = {"w": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_of([node], [("x", FLOAT, [-1, 8])], [("y", FLOAT, [-1, 8])], weight)
    engine = engine_of(model, tmp_path)
    assert [step.op for step in engine._program.steps] == ["linear"]
    agrees(model, engine, {"x": np.ones((3, 8), np.float32)})


def test_an_output_may_be_stored(tmp_path: Path) -> None:
    stored = {"c": np.array([1, 2], np.float32), "w": np.eye(4, dtype=np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports: list[Port] = [("y", FLOAT, ["n", 4]), ("c", FLOAT, [2]), ("w", FLOAT, [4, 4])]
    model = model_of(nodes, [("x", FLOAT, ["n", 4])], ports, stored)
    agrees(model, engine_of(model, tmp_path), {"x": np.ones((3, 4), np.float32)})


def test_outputs_without_a_shape_are_inferred_and_inputs_are_named(tmp_path: Path) -> None:
    weight = {"w": np.eye(4, dtype=np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_of([node], [("x", FLOAT, ["n", 4])], [("y", FLOAT, None)], weight)  # type: ignore[list-item]
    agrees(model, engine_of(model, tmp_path), {"x": np.ones((3, 4), np.float32)})
    model = model_of([node], [("x", FLOAT, None)], [("y", FLOAT, None)], weight)  # type: ignore[list-item]
    with pytest.raises(ModelError, match="'x' is an input or output of no stated shape"):
        engine_of(model, tmp_path)


def test_sparse_tensors_are_refused_in_a_sentence(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])]
    )
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 5]), "i")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, indices=places, dims=[4, 4]))
    with pytest.raises(ModelError, match="stores sparse tensors, which are not read; store them dense"):
        engine_of(model, tmp_path)


def test_more_axes_than_steps_pass_are_refused_at_the_border_alone(tmp_path: Path) -> None:
    nine: list[int | str] = [1] * 8 + ["n"]
    with pytest.raises(ValueError, match="The value 'x' has 9 axes, but between steps"):
        engine_of(
            model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, nine)], [("y", FLOAT, nine)]),
            tmp_path,
        )
    tensors = {
        "in": np.array([-1, 2, 2, 2, 1, 1, 1, 1, 1]),
        "out": np.array([-1, 8]),
        "w": np.eye(8, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "in"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "out"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, ["n", 8])], [("y", FLOAT, ["n", 8])], tensors)
    agrees(
        model,
        engine_of(model, tmp_path),
        {"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)},
    )


def test_two_nodes_of_one_name_in_one_part(tmp_path: Path) -> None:
    nodes = [helper.make_node("Elu", ["x"], ["a"], "same"), helper.make_node("Celu", ["a"], ["y"], "same")]
    model = model_of(nodes, [("x", FLOAT, ["n", 8])], [("y", FLOAT, ["n", 8])])
    x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    (made,) = engine_of(model, tmp_path).run({"x": x}).values()
    elu = np.where(x > 0, x, np.exp(x) - 1)
    np.testing.assert_allclose(made, np.where(elu > 0, elu, np.exp(elu) - 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int16", "uint16", "uint32", "uint64", "int8", "uint8", "int32", "int64"]
)
def test_every_numeric_type_passes(dtype: str, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Concat", ["x", "c"], ["y"], axis=0)]
    stored = {"c": np.array([7, 9], dtype)}
    model = model_of(nodes, [("x", kind, ["n"])], [("y", kind, ["m"])], stored)
    x = np.array([1, 2, 3], dtype)
    made = engine_of(model, tmp_path).run({"x": x})["y"]
    assert made.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(made, [1, 2, 3, 7, 9])


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
def test_types_that_numpy_lacks_come_and_go_as_float32(kind: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["c"], to=FLOAT), helper.make_node("Neg", ["c"], ["d"])]
    nodes += [helper.make_node("Cast", ["d"], ["y"], to=kind)]
    model = model_of(nodes, [("x", kind, ["n"])], [("y", kind, ["n"])], opset=21)
    engine = engine_of(model, tmp_path)
    assert engine.inputs[0].dtype == np.float32
    x = np.array([1.0, -2.5, 0.1], np.float32)
    made = engine.run({"x": x})["y"]
    np.testing.assert_allclose(made, -x, rtol=0.07)
    assert made[0] == -1.0


def test_texts(tmp_path: Path) -> None:
    node, kind = helper.make_node("StringConcat", ["x", "x"], ["y"]), TensorProto.STRING
    engine = engine_of(model_of([node], [("x", kind, ["n"])], [("y", kind, ["n"])], opset=20), tmp_path)
    for fed in (np.array(["ab", "ü"]), np.array(["ab", "ü"], object)):
        assert engine.run({"x": fed})["y"].tolist() == ["abab", "üü"]


def test_scalars_stay_scalars_and_may_be_fed_as_numpy_numbers(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "x"], ["y"])
    engine = engine_of(model_of([node], [("x", FLOAT, [])], [("y", FLOAT, [])]), tmp_path)
    for fed in (np.float32(3), np.array(3, np.float32)):
        made = engine.run({"x": fed})["y"]
        assert made.shape == ()
        assert made == 9


def test_empty_arrays_pass_where_no_native_step_takes_them(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0, noop_with_empty_axes=1)]
    inputs: list[Port] = [("x", FLOAT, ["n", 4]), ("axes", TensorProto.INT64, ["k"])]
    engine = engine_of(model_of(nodes, inputs, [("y", FLOAT, ["n", 4])]), tmp_path)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(engine.run({"x": x, "axes": np.zeros(0, np.int64)})["y"], x)
    weight = {"w": np.ones((4, 4), np.float32)}
    native = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 4])],
        weight,
    )
    with pytest.raises(ValueError, match="takes an array that is not empty"):
        engine_of(native, tmp_path).run({"x": np.zeros((0, 4), np.float32)})


def test_what_a_step_before_leaves_empty_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["c"], axis=0),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    inputs: list[Port] = [("x", FLOAT, ["n", 4]), ("keep", TensorProto.BOOL, ["n"])]
    weight = {"w": np.eye(4, dtype=np.float32)}
    engine = engine_of(model_of(nodes, inputs, [("y", FLOAT, ["m", 4])], weight), tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(engine.run({"x": x, "keep": np.array([True, False, True])})["y"], x[[0, 2]])
    with pytest.raises(ValueError, match=r"A native step reads an array of the shape \[0, 4\], which a step"):
        engine.run({"x": x, "keep": np.zeros(3, bool)})


def test_a_sequence_at_the_border_is_refused_in_a_sentence(tmp_path: Path) -> None:
    node = helper.make_node("SplitToSequence", ["x"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(
        ModelError, match="the output 'y' is a sequence, but an engine takes and gives tensors alone"
    ):
        engine_of(model, tmp_path)


def test_a_sequence_around_a_native_step_lets_onnx_runtime_run_it_all(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("SequenceAt", ["parts", "zero"], ["first"]),
        helper.make_node("MatMul", ["first", "w"], ["p"]),
        helper.make_node("SequenceInsert", ["parts", "p"], ["more"]),
        helper.make_node("ConcatFromSequence", ["more"], ["y"], axis=0),
    ]
    tensors = {"zero": np.array(0), "w": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}
    model = model_of(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["m", 4])], tensors)
    engine = engine_of(model, tmp_path)
    agrees(model, engine, {"x": np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)})


def test_branches_read_what_lies_around_them(tmp_path: Path) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["h", "c"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node(
            "If", ["flag"], ["i"], then_branch=branch("t", "Add"), else_branch=branch("e", "Mul")
        ),
        helper.make_node("MatMul", ["i", "w"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.normal(size=(4, 4)).astype(np.float32),
        "c": rng.normal(size=4).astype(np.float32),
    }
    inputs: list[Port] = [("x", FLOAT, ["n", 4]), ("flag", TensorProto.BOOL, [])]
    model = model_of(nodes, inputs, [("y", FLOAT, ["n", 4])], tensors)
    engine = engine_of(model, tmp_path)
    assert [step.op for step in engine._program.steps] == ["linear", "fallback", "linear"]
    x = rng.normal(size=(2, 4)).astype(np.float32)
    for flag in (True, False):
        agrees(model, engine, {"x": x, "flag": np.array(flag)})


def test_large_tensors_of_a_part_stand_in_the_engine_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(64, 64, 6, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Einsum", ["x", "k"], ["a"], equation="nchw,dchw->ndhw"),
        helper.make_node("Elu", ["a"], ["b"]),
        helper.make_node("Einsum", ["b", "k"], ["y"], equation="nchw,dchw->ndhw"),
    ]
    shape = ["n", 64, 6, 6]
    model = model_of(nodes, [("x", FLOAT, shape)], [("y", FLOAT, shape)], {"k": kernel})
    path = tmp_path / "outside.onnx"
    onnx.save(copy.deepcopy(model), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    engine = engine_of(path, tmp_path)
    (step,) = engine._program.steps
    assert set(step.tensors) == {"model", "data.0"}
    assert (tmp_path / "m.engine").stat().st_size < kernel.nbytes + 20_000
    (tmp_path / "w.bin").unlink()
    agrees(model, load(tmp_path / "m.engine"), {"x": rng.normal(size=(1, 64, 6, 6)).astype(np.float32)})
