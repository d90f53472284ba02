"""Computing nodes for constants, shapes and masks: what ONNX Runtime gives, of every kind of content."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from openwork.graph.evaluate import Nodes, run_onnx_node
from openwork.graph.model import ModelError

Array = np.ndarray


def graph_of(nodes: list[onnx.NodeProto], inputs: dict[str, int], opset: int = 18) -> ir.Graph:
    """A graph of nodes that reads inputs of these types, of any shape, and gives its last node's results."""
    ports = [helper.make_tensor_value_info(name, dtype, None) for name, dtype in inputs.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output]
    graph = helper.make_graph(nodes, "graph", ports, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(model).graph


def computed(node: onnx.NodeProto, *arrays: Array | None, opset: int = 18) -> Array:
    names = [name for name in node.input if name]
    graph = graph_of([node], dict.fromkeys(names, TensorProto.FLOAT), opset)
    (result, *_) = run_onnx_node(graph[0], arrays)
    assert result is not None
    return result


def test_indices_may_be_fewer_than_the_data_off_the_axis() -> None:
    node = helper.make_node("GatherElements", ["d", "i"], ["y"], axis=1)
    data, indices = np.arange(64)[None] * 10, np.array([[0, 1, 2]])
    np.testing.assert_array_equal(computed(node, data, indices), [[0, 10, 20]])


@pytest.mark.parametrize("content", [np.float32(3), np.array(3, np.int64), np.array(True)])
def test_a_value_without_axes_keeps_none(content: Array) -> None:
    result = computed(helper.make_node("Identity", ["x"], ["y"]), content)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == ((), content.dtype)
    assert result == content


def test_empty_tensors_and_nan_pass() -> None:
    empty = computed(
        helper.make_node("Concat", ["a", "b"], ["y"], axis=0), np.zeros(0, np.int64), np.array([7])
    )
    np.testing.assert_array_equal(empty, [7])
    held = computed(helper.make_node("Max", ["a"], ["y"]), np.array([np.nan, -np.inf], np.float32))
    np.testing.assert_array_equal(held, np.array([np.nan, -np.inf], np.float32))


def test_absent_operands_and_results_are_left_out() -> None:
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    np.testing.assert_array_equal(computed(node, np.float32([-5, 5]), None, np.array(2, np.float32)), [-5, 2])
    node = helper.make_node("LayerNormalization", ["x", "scale"], ["y", "", "inverse"], epsilon=0.0)
    graph = graph_of([node], {"x": TensorProto.FLOAT, "scale": TensorProto.FLOAT})
    y, mean, inverse = run_onnx_node(graph[0], [np.float32([[-2, 2]]), np.float32([1, 1])])
    assert mean is None
    np.testing.assert_array_equal(y, [[-1, 1]])
    np.testing.assert_array_equal(inverse, [[0.5]])


def test_a_node_that_was_given_another_value_is_computed_with_that() -> None:
    graph = graph_of(
        [helper.make_node("Neg", ["a"], ["y"])], {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT}
    )
    node = graph[0]
    assert run_onnx_node(node, [np.float32(1)]) == [-1]
    node.replace_input_with(0, graph.inputs[1])
    assert run_onnx_node(node, [np.float32(2)]) == [-2]


def test_bfloat16_comes_and_goes() -> None:
    held = np.array([1.5, -2], ml_dtypes.bfloat16)
    wide = computed(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), held)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, [1.5, -2])
    narrow = computed(
        helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16), np.float32([1 + 2**-9])
    )
    assert narrow.dtype == ml_dtypes.bfloat16
    assert narrow == 1


def test_texts_are_compared() -> None:
    node = helper.make_node("Equal", ["a", "b"], ["y"])
    texts = np.array(["left", "right"], object)
    np.testing.assert_array_equal(
        computed(node, texts, np.array(["left", "left"], object), opset=19), [True, False]
    )


@pytest.mark.parametrize("opset", [9, 13, 24, 28, 40])
def test_an_operator_is_known_in_every_opset_in_which_it_is_the_same(opset: int) -> None:
    found = computed(helper.make_node("Tanh", ["x"], ["y"]), np.float32([0, np.inf]), opset=opset)
    np.testing.assert_array_equal(found, [0, 1])


@pytest.mark.parametrize("op", ["Div", "Mod"])
@pytest.mark.parametrize(
    ("divided", "divisor"), [([5], [0]), ([np.iinfo(np.int64).min], [-1]), ([5, 6], [2, 0])]
)
def test_integers_divided_by_what_ends_a_process_are_refused(
    op: str, divided: list[int], divisor: list[int]
) -> None:
    with pytest.raises(ModelError, match="it divides an integer by 0, or the lowest by -1"):
        computed(helper.make_node(op, ["a", "b"], ["y"]), np.array(divided), np.array(divisor))
    graph = graph_of(
        [helper.make_node("Neg", ["b"], ["n"]), helper.make_node(op, ["a", "n"], ["y"])],
        {"a": TensorProto.INT64, "b": TensorProto.INT64},
    )
    part = Nodes(tuple(graph), graph.outputs[0])
    known = {graph.inputs[0]: np.array(divided), graph.inputs[1]: -np.array(divisor)}
    with pytest.raises(ModelError, match="it divides an integer by 0, or the lowest by -1"):
        part.run(known)
    quotient = part.run({graph.inputs[0]: np.array([7, 8]), graph.inputs[1]: np.array([-2])})
    np.testing.assert_array_equal(quotient, [3, 4] if op == "Div" else [1, 0])


def branches(captured: bool) -> ir.Graph:
    inner = (
        helper.make_node("Identity", ["x"], ["t"])
        if captured
        else helper.make_node("Constant", [], ["t"], value_float=2.0)
    )
    one = helper.make_graph([inner], "then", [], [helper.make_empty_tensor_value_info("t")])
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["e"], value_float=3.0)],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=other)
    return graph_of([node], {"c": TensorProto.BOOL, "x": TensorProto.FLOAT})


def test_branches_that_stand_by_themselves_are_computed() -> None:
    node = branches(False)[0]
    assert run_onnx_node(node, [np.array(True)]) == [2.0]
    assert run_onnx_node(node, [np.array(False)]) == [3.0]


def test_branches_that_read_what_lies_around_them_are_not() -> None:
    with pytest.raises(ModelError, match="cannot be evaluated by itself: its branches read 'x' from outside"):
        run_onnx_node(branches(True)[0], [np.array(True)])


def test_sequences_live_inside_a_part_and_not_outside() -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["a", "b"], ["s"]),
        helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0),
    ]
    graph = graph_of(nodes, {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT})
    contents = {port: np.float32([number]) for number, port in enumerate(graph.inputs)}
    np.testing.assert_array_equal(Nodes(tuple(graph), graph.outputs[0]).run(contents), [0, 1])
    with pytest.raises(ModelError, match="its result is no tensor"):
        run_onnx_node(graph[0], list(contents.values()))


def test_what_has_no_kernel_cannot_be_computed() -> None:
    with pytest.raises(ModelError, match=r"^Erf '.*' cannot be evaluated: Could not find an implementation"):
        computed(helper.make_node("Erf", ["x"], ["y"]), np.array([1], np.float64))


def test_many_nodes_give_what_they_give_one_by_one() -> None:
    """A part reads small constants, large ones, and what it is fed, and equal parts are one."""
    table = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["table"], value=onnx.numpy_helper.from_array(table)),
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["y"], axes=[-1], keepdims=0),
    ]
    graph = graph_of(nodes, {"ids": TensorProto.INT64}, opset=13)
    part = Nodes(tuple(graph), graph.outputs[0])
    for ids in (np.array([3, 49]), np.array(7)):
        # A mean of 40 numbers below 4: 40 roundings of at most 4 / 2^24.
        np.testing.assert_allclose(part.run({graph.inputs[0]: ids}), table[ids].mean(-1), rtol=0, atol=1e-5)
