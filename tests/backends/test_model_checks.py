"""The ONNX parts of an engine: what is hostile is refused before ONNX Runtime sees it, what the builder
writes is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import openwork
from engine_files import REPORT
from openwork.backends.onnxruntime import wire
from openwork.backends.onnxruntime.model_checks import DOMAINS, ModelFault, check_model
from openwork.backends.onnxruntime.session import FallbackSession
from openwork.builder.builder import build
from openwork.builder.lower import BuildError
from openwork.engine.engine_file import write_engine
from openwork.engine.program import FALLBACK, Named, Program, Step, Value
from openwork.graph.versions import NEWEST, OLDEST
from openwork.support.fields import EngineFileError

PORT = Value("f32", ("rows", 4))
STEP = Step(FALLBACK, "part", (0,), (1,), {"model": "part.model"}, backend="onnxruntime")
WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4)


def branch(name: str, scale: float) -> onnx.GraphProto:
    constant = numpy_helper.from_array(np.float32(scale).reshape(1), f"{name}.scale")
    nodes = [
        helper.make_node("Constant", [], [f"{name}.c"], value=constant),
        helper.make_node("Mul", ["h", f"{name}.c"], [name]),
    ]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def good() -> onnx.ModelProto:
    """y = (x @ w) scaled by an If, with a tensor in an initializer, in an attribute and in two subgraphs."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceSum", ["h"], ["s"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float32(0), "zero")),
        helper.make_node("Greater", ["s", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch("a", 2), else_branch=branch("b", 3)),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(WEIGHT, "w")])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def check(content: bytes) -> None:
    check_model(memoryview(content), [PORT], [PORT])


def outcome(content: bytes) -> str | None:
    """Why the bytes are refused as the model of a step, by the checks or by ONNX Runtime; None where they
    run."""
    try:
        session = FallbackSession(STEP, (PORT, PORT), {"part.model": np.frombuffer(content, np.uint8)}, 1)
        session.run([np.ones((3, 4), np.float32)])
    except ValueError as error:
        return str(error)
    return None


def test_what_is_plain_runs() -> None:
    model = good()
    session = FallbackSession(
        STEP, (PORT, PORT), {"part.model": np.frombuffer(model.SerializeToString(), np.uint8)}, 1
    )
    x = np.random.default_rng(0).uniform(0, 1, (5, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run([x])[0], 2 * (x @ WEIGHT), rtol=1e-5)


def test_the_domains_cover_what_the_builder_reads() -> None:
    for domain in ("", "ai.onnx"):
        first, last = DOMAINS[domain]
        assert first <= OLDEST
        assert last >= NEWEST


def external(tensor: TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def listed_location(tensor: TensorProto) -> None:
    tensor.external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(found for found in node.attribute if found.name == name)


def nested(model: onnx.ModelProto) -> TensorProto:
    branch = attribute(model.graph.node[4], "else_branch").g
    return branch.node[0].attribute[0].t


def function(model: onnx.ModelProto, calls: str) -> None:
    body = [helper.make_node(calls, ["a"], ["b"], domain="")]
    made = helper.make_function("ai.onnx", "Loop2", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    external(made.node[0].attribute.add(name="t", type=onnx.AttributeProto.TENSOR).t)
    model.functions.append(made)


def many_tensors(model: onnx.ModelProto) -> None:
    listed = model.graph.node[0].attribute.add(name="all", type=onnx.AttributeProto.TENSORS)
    external(listed.tensors.add(dims=[1], data_type=1, name="inner"))


def sparse(model: onnx.ModelProto) -> None:
    found = model.graph.sparse_initializer.add(dims=[1 << 30, 1 << 30])
    found.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    found.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))


def typed_too(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].float_data.append(1.0)


def strings(model: onnx.ModelProto) -> None:
    model.graph.initializer.add(name="t", data_type=TensorProto.STRING, dims=[3]).string_data.append(b"x")


def fixed(port: onnx.ValueInfoProto, axis: int, size: int) -> None:
    port.type.tensor_type.shape.dim[axis].dim_value = size


HOSTILE: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "external data": (lambda m: external(m.graph.initializer[0]), "the tensor 'w' with data outside of it"),
    "an address as data": (
        lambda m: listed_location(m.graph.initializer[0]),
        "the tensor 'w' with data outside",
    ),
    "external data in an attribute": (
        lambda m: external(m.graph.node[2].attribute[0].t),
        "'zero' with data outside",
    ),
    "external data in a subgraph": (lambda m: external(nested(m)), "'b.scale' with data outside"),
    "external data in a list": (many_tensors, "'inner' with data outside"),
    "a function": (lambda m: function(m, "Loop2"), "expected no functions"),
    "training": (
        lambda m: m.training_info.add().initialization.node.add(op_type="Relu"),
        "nothing for training",
    ),
    "a sparse tensor": (sparse, "expected dense tensors only"),
    "a foreign domain": (
        lambda m: m.opset_import.add(domain="evil", version=1),
        "expected operators of ai.onnx, ai.onnx.ml, com.microsoft, found the domain 'evil'",
    ),
    "a foreign operator": (
        lambda m: setattr(m.graph.node[0], "domain", "evil"),
        "found 'MatMul' of the domain 'evil'",
    ),
    "a foreign operator in a subgraph": (
        lambda m: setattr(attribute(m.graph.node[4], "then_branch").g.node[1], "domain", "ai.onnx.training"),
        "found 'Mul' of the domain 'ai.onnx.training'",
    ),
    "an operator that opens files": (
        lambda m: m.graph.node.add(op_type="EPContext", domain="com.microsoft"),
        "operators that open no files, found EPContext",
    ),
    "too new operators": (
        lambda m: setattr(m.opset_import[0], "version", 99),
        f"version 7 to {NEWEST} of the domain ai.onnx",
    ),
    "a negative version": (lambda m: setattr(m.opset_import[0], "version", -1), f"version 7 to {NEWEST}"),
    "no IR version": (lambda m: m.ClearField("ir_version"), "expected an IR version from 3 to"),
    "an unknown IR version": (lambda m: setattr(m, "ir_version", 1000), "expected an IR version from 3 to"),
    "fewer bytes than the shape": (
        lambda m: m.graph.initializer[0].dims.append(1 << 20),
        "expected 67108864 bytes for the shape [4, 4, 1048576] of the tensor 'w', found 64 bytes",
    ),
    "a shape that overflows": (
        lambda m: m.graph.initializer[0].dims.extend([1 << 62, 0]),
        "expected dimensions from 0 to 2147483647, found the tensor 'w'",
    ),
    "a negative dimension": (lambda m: m.graph.initializer[0].dims.append(-1), "expected dimensions from 0"),
    "data twice": (
        typed_too,
        "expected 64 bytes for the shape [4, 4] of the tensor 'w', found 64 bytes and 1 of float_data",
    ),
    "too few strings": (strings, "expected 3 of string_data"),
    "an unknown element type": (
        lambda m: setattr(m.graph.initializer[0], "data_type", 77),
        "a known element type",
    ),
    "another input": (lambda m: m.graph.input.add(name="z"), "expected the step's 1 inputs, found 2 inputs"),
    "no outputs": (lambda m: m.graph.ClearField("output"), "expected the step's 1 outputs, found 0 outputs"),
    "an input of another type": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
        "'x' among the inputs to be the step's f32 ['rows', 4], found element type 11",
    ),
    "an output of another size": (
        lambda m: fixed(m.graph.output[0], 1, 5),
        "'y' among the outputs to be the step's f32",
    ),
    "an input of a size that is free": (
        lambda m: fixed(m.graph.input[0], 0, 7),
        "found element type 1 and [7, 4]",
    ),
    "an input that is no tensor": (
        lambda m: m.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent(),
        "'x' among the inputs to be",
    ),
    "no such operator": (
        lambda m: setattr(m.graph.node[0], "op_type", "Nothing"),
        "expected a valid ONNX model",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused(name: str) -> None:
    change, message = HOSTILE[name]
    model = good()
    change(model)
    with pytest.raises(ModelFault) as raised:
        check(model.SerializeToString())
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("dtype", "values", "field"),
    [
        (TensorProto.FLOAT16, 6, "int32_data"),
        (TensorProto.INT4, 3, "int32_data"),
        (TensorProto.COMPLEX64, 12, "float_data"),
        (TensorProto.UINT64, 6, "uint64_data"),
        (TensorProto.BOOL, 6, "int32_data"),
    ],
)
def test_typed_data_is_counted(dtype: int, values: int, field: str) -> None:
    model = good()
    tensor = model.graph.initializer.add(name="t", data_type=dtype, dims=[2, 3])
    getattr(tensor, field).extend([1] * values)
    check(model.SerializeToString())
    getattr(tensor, field).append(1)
    with pytest.raises(ModelFault, match=rf"expected {values} of {field} .* found {values + 1} of {field}"):
        check(model.SerializeToString())


def test_bytes_that_grow_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_MESSAGES", 1000)
    model = good()
    model.graph.node.extend([onnx.NodeProto()] * 1001)
    with pytest.raises(ModelFault, match="more than 1000 parts"):
        check(model.SerializeToString())
    monkeypatch.setattr(wire, "MOST_FIELDS", 10)
    with pytest.raises(ModelFault, match="more than 10 fields"):
        check(good().SerializeToString())


def test_nesting_has_a_bottom() -> None:
    model = good()
    for _ in range(40):
        outer = good()
        attribute(outer.graph.node[4], "then_branch").g.CopyFrom(model.graph)
        model = outer
    with pytest.raises(ModelFault, match="nested more than 64 deep"):
        check(model.SerializeToString())


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 40, b"\x08\x0a\x3b", b"\x08" + b"\x80" * 40, b"\x0a\xff\x01x"]
)
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(ModelFault, match="expected"):
        check(content)


def test_a_model_that_looks_like_the_other_format_is_read_as_onnx() -> None:
    model = good()
    model.producer_name = "ORTM"
    content = model.SerializeToString()
    assert content[4:8] == b"ORTM"
    assert outcome(content) is None


@pytest.mark.parametrize("seed", range(4))
def test_altered_bytes_are_refused_or_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = good().SerializeToString()
    refused = 0
    for _ in range(100):
        altered = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            altered[place] = rng.integers(0, 256)
        cut = altered if rng.random() < 0.8 else altered[: rng.integers(len(altered))]
        message = outcome(bytes(cut))
        assert message is None or "the step 'part'" in message, f"seed {seed}: {message}"
        refused += message is not None
    assert refused > 20, f"seed {seed}"


def engine(path: Path, model: onnx.ModelProto) -> Path:
    program = Program((Named("x", 0),), (Named("y", 1),), (PORT, PORT), (STEP,))
    content = np.frombuffer(model.SerializeToString(), np.uint8)
    write_engine(path, program, REPORT.to_json(), {"part.model": content})
    return path


def test_a_hostile_engine_is_refused_by_its_file_and_step(tmp_path: Path) -> None:
    x = np.ones((2, 4), np.float32)
    loaded = openwork.load(engine(tmp_path / "good.engine", good()), threads=1)
    np.testing.assert_allclose(loaded.run({"x": x})["y"], 2 * (x @ WEIGHT))
    model = good()
    external(model.graph.initializer[0])
    with pytest.raises(EngineFileError) as raised:
        openwork.load(engine(tmp_path / "bad.engine", model), threads=1)
    assert re.search(
        r"bad\.engine: .* the step 'part': expected tensors whose data stand in", str(raised.value)
    )


def test_the_builder_refuses_what_the_loader_would(tmp_path: Path) -> None:
    nodes = [helper.make_node("Opaque", ["x"], ["y"], "opaque", domain="vendor")]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("vendor", 1)]
    model = helper.make_model(graph, ir_version=9, opset_imports=domains)
    with pytest.raises(
        BuildError,
        match=r"No back end runs vendor\.Opaque 'opaque': .* ONNX Runtime knows operators of .* 'vendor'",
    ):
        build(model, tmp_path / "m.engine", progress=False)
    assert not list(tmp_path.iterdir())


def with_stored(location: str = "data.0", **more: str) -> onnx.ModelProto:
    """The model whose weight stands beside it in the engine."""
    model = good()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def test_a_weight_that_stands_beside_the_model_is_taken_from_there() -> None:
    content = np.frombuffer(with_stored().SerializeToString(), np.uint8)
    step = replace(STEP, tensors={"model": "part.model", "data.0": "part.data.0"})
    tensors = {"part.model": content, "part.data.0": WEIGHT.reshape(-1).view(np.uint8)}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    (made,) = FallbackSession(step, (PORT, PORT), tensors, 1).run([x])
    h = x @ WEIGHT
    np.testing.assert_allclose(made, h * (2 if h.sum() > 0 else 3), rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "stored", "message"),
    [
        (with_stored(), [63], "expected 64 bytes for [4, 4] of the tensor 'w', found 63 bytes"),
        (with_stored(), [], "expected each of 0 stored tensors in one initializer, found those of [0]"),
        (with_stored(), [64, 64], "expected each of 2 stored tensors in one initializer, found those of [0]"),
        (with_stored("data.1"), [64], "each of 1 stored tensors in one initializer, found those of [1]"),
        (with_stored("data.00"), [], "tensors whose data stand in the model"),
        (with_stored("../data.0"), [], "tensors whose data stand in the model"),
        (
            with_stored("data.0", offset="0"),
            [64],
            "each of 1 stored tensors in one initializer, found those of []",
        ),
        (with_stored("/etc/passwd"), [], "tensors whose data stand in the model"),
    ],
)
def test_stored_tensors_fill_their_shapes_and_nothing_else_is_opened(
    model: onnx.ModelProto, stored: list[int], message: str
) -> None:
    with pytest.raises(ModelFault) as raised:
        check_model(memoryview(model.SerializeToString()), [PORT], [PORT], stored)
    assert message in str(raised.value)


def test_a_tensor_of_a_branch_cannot_stand_beside_the_model() -> None:
    model = good()
    inner = model.graph.node[-1].attribute[0].g.node[0].attribute[0].t
    inner.ClearField("raw_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="data.0")
    with pytest.raises(ModelFault, match=r"0 stored|1 stored|stand in the model"):
        check_model(memoryview(model.SerializeToString()), [PORT], [PORT], [4])
    with pytest.raises(ModelFault, match="tensors whose data stand in the model"):
        check_model(memoryview(model.SerializeToString()), [PORT], [PORT])
