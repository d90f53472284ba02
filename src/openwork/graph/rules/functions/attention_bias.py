"""What is added to the scores of attention as native steps read it: f32 [batch, heads, queries, keys]."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import constant, dims
from openwork.graph.probe import cone
from openwork.graph.rewrite import precedes
from openwork.graph.rules.functions.attention_scores import Bias

_MADE = "native biases"
"""Where a graph keeps in its `meta` the biases that were made: Bias -> value."""
_AXES = 4


def refused_bias(bias: Bias, heads: int) -> str | None:
    """Why the numbers cannot be added by the native operator; None where they can."""
    shape = (None,) * _AXES + (dims(bias.value) or ())
    if constant(bias.value) is not None:
        return "its bias is stored, and the same for all inputs"
    if shape[-1] == 1:
        return "its bias has one number for all keys"
    if isinstance(shape[-3], int) and shape[-3] not in (1, heads):
        return f"its bias is for {shape[-3]} heads, its scores are for {heads}"
    return None


def is_infinite(bias: Bias) -> bool:
    """Whether minus infinity is among the numbers that the bias is made of."""
    found = cone(bias.value)
    read = [value for node in (found.nodes if found else ()) for value in node.inputs]
    arrays = [array for value in (bias.low, *read) if (array := constant(value)) is not None]
    return any(array.dtype.kind == "f" and bool(np.isneginf(array).any()) for array in arrays)


def bias_value(graph: ir.Graph, bias: Bias, before: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """The bias with all four axes, and new nodes that make it.

    There are none where it is there, or where nodes in front of `before` make it for another reader.
    """
    known = graph.meta.setdefault(_MADE, {})
    made = known.get(bias)
    maker = None if made is None else made.producer()
    if made is not None and maker is not None and maker.graph is graph and precedes(maker, before):
        return made, []
    value, nodes = bias.value, list[ir.Node]()
    if bias.low is not None:
        value = _chosen(graph, bias, nodes)
    missing = _AXES - len(dims(value) or ())
    if missing:
        axes = add_initializer(graph, f"axes_{missing}", np.arange(missing, dtype=np.int64))
        value = _add(nodes, "Unsqueeze", [value, axes], (1,) * missing + (dims(value) or ()))
    if nodes:
        known[bias] = value
    return value, nodes


def _chosen(graph: ir.Graph, bias: Bias, nodes: list[ir.Node]) -> ir.Value:
    """0 where the score stays, and else what stands in its place."""
    zero = add_initializer(graph, "zero", np.zeros((), np.float32))
    assert bias.low is not None
    pair = [zero, bias.low] if bias.keeps else [bias.low, zero]
    return _add(nodes, "Where", [bias.value, *pair], dims(bias.value) or ())


def _add(
    nodes: list[ir.Node], op_type: str, inputs: list[ir.Value], shape: tuple[int | str | None, ...]
) -> ir.Value:
    node = ir.Node("", op_type, inputs, name=f"{inputs[0].name}.bias.{op_type}")
    node.outputs[0].shape, node.outputs[0].type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    node.meta["refusals"] = [
        ("attention bias", "it makes the numbers that native attention adds to its scores")
    ]
    nodes.append(node)
    return node.outputs[0]
