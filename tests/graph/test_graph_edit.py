"""Changing a graph: names stay unique, readers follow, and messages share no tensor with graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from openwork.graph.edit import (
    add_initializer,
    bypass,
    insert_behind,
    onnx_node,
    overwrite,
    own_model,
    set_input,
    set_tensor,
)
from openwork.graph.model import (
    constant,
    lone_producer,
    needed,
)
from openwork.graph.quantizers.nodes import dequantizer, quantizer, stored_scale
from openwork.qdq.affine import Affine, dequantize, quantize

SHARED = """
<ir_version: 8, opset_import: ["" : 18]>
agraph (float[2, 3] x) => (float[2, 3] y, float[2, 3] z)
<float[3] b = {1, 2, 3}>
{
  s = Add(x, b)
  y = Relu(s)
  z = Mul(x, b)
}
"""


def graph_of(text: str = SHARED) -> ir.Model:
    return own_model(onnx.parser.parse_model(text))


def computed(model: ir.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return dict(zip([v.name for v in session.get_outputs()], session.run(None, {"x": x}), strict=True))


X = np.array([[-4, 0.5, 2], [1, -2.25, 8]], np.float32)
B = np.array([1, 2, 3], np.float32)


def test_a_message_and_its_graph_share_no_tensor() -> None:
    proto = onnx.parser.parse_model(SHARED)
    model = own_model(proto)
    overwrite(model.graph.initializers["b"], B * 10)
    assert np.array_equal(onnx.numpy_helper.to_array(proto.graph.initializer[0]), B)
    assert np.array_equal(computed(model, X)["z"], X * B * 10)


def test_a_tensor_with_other_readers_stays_what_it_is_for_them() -> None:
    model = graph_of()
    add = model.graph[0]
    set_tensor(add, 1, B + 1, "b.moved")
    assert needed(add, 1).name == "b.moved"
    results = computed(model, X)
    assert np.array_equal(results["y"], np.maximum(X + B + 1, 0))
    assert np.array_equal(results["z"], X * B)


def test_a_tensor_that_one_node_reads_keeps_its_name() -> None:
    model = graph_of()
    add, _, multiply = model.graph
    set_tensor(multiply, 1, B, "apart")
    set_tensor(add, 1, np.ones((2, 3), np.float32), "unused name")
    assert needed(add, 1).name == "b"
    assert list(needed(add, 1).shape or ()) == [2, 3]
    assert np.array_equal(computed(model, X)["y"], np.maximum(X + 1, 0))


def test_initializers_never_take_a_name_that_is_there() -> None:
    model = graph_of()
    names = [add_initializer(model.graph, "b", B).name for _ in range(2)]
    assert names == ["b.1", "b.2"]
    assert add_initializer(model.graph, "x", B).name == "x.1"


def test_an_input_is_set_where_there_was_none() -> None:
    node = ir.node("Clip", [ir.Value(name="x")])
    least = ir.Value(name="least")
    set_input(node, 2, least)
    assert [value.name if value else None for value in node.inputs] == ["x", None, "least"]
    set_input(node, 2, needed(node, 0))
    assert not least.uses()


@pytest.mark.parametrize("keep_name", [False, True])
def test_a_bypassed_output_of_the_graph_keeps_its_name(keep_name: bool) -> None:
    model = graph_of()
    add, relu, _ = model.graph
    bypass(relu, add.outputs[0], keep_name)
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    assert np.array_equal(computed(model, X)["y"], X + B)


@pytest.mark.parametrize(("keep_name", "name"), [(False, "s"), (True, "t")])
def test_a_bypassed_inner_value_keeps_its_name_when_asked_to(keep_name: bool, name: str) -> None:
    text = SHARED.replace("y = Relu(s)", "t = Neg(s) y = Relu(t)")
    model = graph_of(text)
    add, negate, relu, _ = model.graph
    bypass(negate, add.outputs[0], keep_name)
    assert needed(relu, 0).name == name
    assert np.array_equal(computed(model, X)["y"], np.maximum(X + B, 0))


@pytest.mark.parametrize("source", ["x", "s"])
def test_a_quantizer_rounds_what_its_readers_see(source: str) -> None:
    model = graph_of()
    graph = model.graph
    value = graph.inputs[0] if source == "x" else graph[0].outputs[0]
    readers = [(use.node, use.idx) for use in value.uses()]
    scale = add_initializer(graph, "scale", np.array(0.5, np.float32))
    zero = add_initializer(graph, "zero_point", np.array(3, np.uint8))
    nodes = quantizer(value, scale, zero, "u8", source)
    insert_behind(graph, value, nodes)
    for node, place in readers:
        set_input(node, place, nodes[1].outputs[0])
    affine = Affine(0.5, 3, "u8")
    rounded = {name: dequantize(quantize(array, affine), affine) for name, array in (("x", X), ("s", X + B))}
    expected = rounded["x"] + B if source == "x" else rounded["s"]
    assert np.array_equal(computed(model, X)["y"], np.maximum(expected, 0))
    assert stored_scale(nodes[1].outputs[0]) == np.float32(0.5)
    assert stored_scale(nodes[0].outputs[0]) is None


def test_a_dequantizer_stands_behind_stored_integers() -> None:
    model = graph_of()
    graph = model.graph
    integers = add_initializer(graph, "q", np.array([[2, -3, 4], [5, 6, -7]], np.int8))
    scale = add_initializer(graph, "q:scale", np.array([0.5, 2, 1], np.float32))
    node = dequantizer(integers, scale, 1, "q")
    insert_behind(graph, integers, [node])
    set_input(graph[1], 1, node.outputs[0])
    expected = X + constant(integers) * np.array([0.5, 2, 1], np.float32)
    assert np.array_equal(computed(model, X)["y"], np.maximum(expected, 0))


def test_a_lone_producer_has_one_reader_and_gives_no_output() -> None:
    model = graph_of()
    add, relu, multiply = model.graph
    assert lone_producer(add.outputs[0], "Add") is add
    assert lone_producer(add.outputs[0], "Mul") is None
    assert lone_producer(relu.outputs[0], "Relu") is None
    set_input(multiply, 0, add.outputs[0])
    assert lone_producer(add.outputs[0], "Add") is None


def test_a_node_has_the_shape_of_the_value_that_it_is_like() -> None:
    model = graph_of()
    node = onnx_node("Neg", (model.graph.inputs[0],), "minus", like=model.graph.inputs[0])
    assert node.outputs[0].name == "minus:0"
    assert node.outputs[0].shape == model.graph.inputs[0].shape
    assert onnx_node("Neg", (model.graph.inputs[0],), "minus").outputs[0].shape is None
