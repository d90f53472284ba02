"""Changing a graph where a rule is not the way: new nodes and initializers, other inputs and outputs.

The rules of `graph/rules` go through `graph/rewrite.py`; what an export or a calibration does once to the
whole graph uses these. Reading a graph is `graph/model.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set

import numpy as np
import onnx
import onnx_ir as ir

from openwork.graph.model import (
    Array,
    graph_of,
    operand,
)


def onnx_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    name: str,
    dtype: ir.DataType = ir.DataType.FLOAT,
    like: ir.Value | None = None,
    **attributes: int,
) -> ir.Node:
    """A standard node with one output, which is called `name`:0; not yet in a graph.

    dtype: of the output. like: a value whose shape the output has; without it the shape is unknown.
    """
    node = ir.node(op_type, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.type = f"{name}:0", ir.TensorType(dtype)
    output.shape = None if like is None else like.shape
    return node


def add_initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Register an initializer under this name, or this name with a number if it is taken."""
    unique = _free(name, _value_names(graph))
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(
        name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def set_input(node: ir.Node, place: int, value: ir.Value) -> None:
    """Let a node read `value` at one place, which it need not have had so far."""
    if len(node.inputs) <= place:
        node.resize_inputs(place + 1)
    node.replace_input_with(place, value)


def overwrite(value: ir.Value, array: Array) -> None:
    """Give an initializer other numbers, for all that read it, under the name that it has."""
    value.const_value = ir.tensor(np.asarray(array, order="C"), name=value.name)
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)


def set_tensor(node: ir.Node, place: int, array: Array, name: str) -> None:
    """Let a node read these numbers at one place.

    Where the node alone reads a tensor there, that one keeps its name, which users and metadata know;
    otherwise the numbers become a new initializer `name`.
    """
    value = operand(node, place)
    if value is not None and value.const_value is not None and len(value.uses()) == 1:
        overwrite(value, array)
    else:
        set_input(node, place, add_initializer(graph_of(node), name, array))


def bypass(node: ir.Node, value: ir.Value, keep_name: bool = False) -> None:
    """Let `value` stand for the node's one output, with its type and shape, and drop the node.

    It takes the output's name too, where the graph returns that or `keep_name` is set.
    """
    graph, old = graph_of(node), node.outputs[0]
    name = old.name if keep_name or old.is_graph_output() else value.name
    # The legacy exporter of torch leaves types out; what is bypassed here is binary32 where it is unknown.
    value.type = old.type or value.type or ir.TensorType(ir.DataType.FLOAT)
    value.shape = old.shape or value.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name = name


def insert_behind(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Insert nodes, in order, right behind what makes `value`; first of all for an input or initializer.

    A node or an output of one whose name the graph has already gets another.
    """
    _rename(graph, nodes)
    maker = value.producer()
    if maker is not None:
        graph.insert_after(maker, nodes)
    else:
        graph.insert_before(graph[0], nodes)


def _value_names(graph: ir.Graph) -> set[str]:
    """The names of all values that the graph and the graphs within it know."""
    names = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
    for inner in graph.subgraphs():
        names |= {str(value.name) for value in (*inner.inputs, *inner.initializers.values())}
    return names | {str(value.name) for node in graph.all_nodes() for value in node.outputs}


def _free(name: str, taken: Set[str]) -> str:
    """The name, or the name with a number if it is taken."""
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}.{number}", number + 1
    return unique


def _rename(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    values, titles = _value_names(graph), {str(node.name) for node in graph}
    for node in nodes:
        node.name = _free(str(node.name), titles)
        titles.add(node.name)
        for output in node.outputs:
            output.name = _free(str(output.name), values)
            values.add(output.name)


def own_model(proto: onnx.ModelProto) -> ir.Model:
    """The model of a message, sharing no tensor with it: a change of one does not reach the other."""
    return ir.from_proto(copy.deepcopy(proto))
