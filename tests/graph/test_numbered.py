"""A Gather by the numbers of all elements, which exporters write for a tensor of given strides."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from openwork.graph import read, reduce
from openwork.graph.rules.prepare.numbered import NUMBERED

CHANNELS = 8


def picking(order: np.ndarray, *, beyond: int = 0) -> onnx.ModelProto:
    """x [batch, CHANNELS] in a row, and of each row the elements that `order` says.

    beyond : from this batch on another order is taken.
    """
    stored = {
        "row": np.array([-1]),
        "first": np.array(0),
        "one": np.array(1),
        "axis": np.array([1]),
        "step": np.array(CHANNELS),
        "order": order,
        "most": np.array(beyond or 1 << 40),
        "place": np.array(0),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "row"], ["flat"], "flat"),
        helper.make_node("Shape", ["x"], ["sizes"], "sizes"),
        helper.make_node("Gather", ["sizes", "place"], ["batch"], "batch"),
        helper.make_node("Range", ["first", "batch", "one"], ["rows"], "rows"),
        helper.make_node("Mod", ["rows", "most"], ["wrapped"], "wrapped"),
        helper.make_node("Mul", ["wrapped", "step"], ["starts"], "starts"),
        helper.make_node("Unsqueeze", ["starts", "axis"], ["column"], "column"),
        helper.make_node("Add", ["column", "order"], ["places"], "places"),
        helper.make_node("Gather", ["flat", "places"], ["picked"], "pick"),
        helper.make_node("Sin", ["picked"], ["y"], "sin"),
    ]
    shape = ["batch", CHANNELS]
    taken, made = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    held = [numpy_helper.from_array(array.astype(np.int64), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "picking", [taken], [made], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_what_leaves_every_element_at_its_place_is_dropped() -> None:
    reduced, changes, _ = reduce(read(picking(np.arange(CHANNELS))))
    assert NUMBERED.name in [change.rule for change in changes]
    assert [node.op_type for node in reduced.graph] == ["Sin"]


@pytest.mark.parametrize(
    ("order", "beyond"),
    [(np.arange(CHANNELS)[::-1].copy(), 0), (np.zeros(CHANNELS), 0), (np.arange(CHANNELS), 50)],
)
def test_what_moves_an_element_stays(order: np.ndarray, beyond: int) -> None:
    reduced, changes, refusals = reduce(read(picking(order, beyond=beyond)))
    assert NUMBERED.name not in [change.rule for change in changes]
    assert "Gather" in [node.op_type for node in reduced.graph]
    assert "it does not leave every element at its place" in [refusal.reason for refusal in refusals]
