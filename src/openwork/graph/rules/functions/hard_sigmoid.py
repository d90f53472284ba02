"""The hard sigmoid and its gate written out: clip(x + 3, 0, 6) / 6, alone or times x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import constant, needed, producer
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.rules.functions.unary import clip_ends

SHIFT, TOP = 3.0, 6.0


@dataclass(frozen=True)
class _Written:
    """A node that is the hard sigmoid of x, times x where it is a gate."""

    node: ir.Node
    x: ir.Value
    gate: bool


def _clipped(value: ir.Value) -> ir.Value | None:
    """x where the value is clip(x + 3, 0, 6)."""
    node = producer(value, "Clip")
    if node is None or clip_ends(node) != (0.0, TOP):
        return None
    split = split_constant(producer(needed(node, 0), "Add"))
    if split is None or split[1].size != 1 or float(split[1].reshape(())) != SHIFT:
        return None
    return split[0]


def _sixth(node: ir.Node) -> ir.Value | None:
    """The value of which the node makes the sixth part."""
    split = split_constant(node)
    if split is None or split[1].size != 1:
        return None
    number = float(split[1].reshape(()))
    if node.op_type == "Div":
        return split[0] if number == TOP and constant(needed(node, 1)) is not None else None
    return split[0] if np.float32(number) == np.float32(1 / TOP) else None


def _match(node: ir.Node) -> _Written | None:
    value = _sixth(node)
    if value is None:
        return None
    x = _clipped(value)
    if x is not None:
        return _Written(node, x, gate=False)
    product = producer(value, "Mul")
    if product is None:
        return None
    first, second = needed(product, 0), needed(product, 1)
    for x, other in ((first, second), (second, first)):
        if _clipped(other) is x:
            return _Written(node, x, gate=True)
    return None


def _replace(found: _Written) -> Replacement:
    old, name = found.node.outputs[0], found.node.name or ""
    numbers = {"alpha": ir.AttrFloat32("alpha", 1 / TOP), "beta": ir.AttrFloat32("beta", 0.5)}
    nodes = [ir.Node("", "HardSigmoid", [found.x], numbers, name=f"{name}.gate" if found.gate else name)]
    if found.gate:
        nodes.append(ir.Node("", "Mul", [found.x, nodes[0].outputs[0]], name=name))
    for node in nodes:
        node.outputs[0].shape, node.outputs[0].type = old.shape, old.type
    return Replacement(nodes, [(old, nodes[-1].outputs[0])])


HARD_SIGMOID_WRITTEN_OUT = Rule(
    "hard sigmoid written out", frozenset({"Mul", "Div"}), _match, never, _replace
)
