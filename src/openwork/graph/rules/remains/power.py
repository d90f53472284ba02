"""Squares and cubes, as GELU's approximation by tanh has them, in products of the value with itself."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import make, needed, scalar
from openwork.graph.rewrite import Replacement, Rule, never

_EXPONENTS = (2, 3)


def _match(node: ir.Node) -> ir.Node | None:
    known = scalar(needed(node, 1)) in _EXPONENTS and needed(node, 0).dtype == ir.DataType.FLOAT
    return node if known and node.outputs[0].dtype == ir.DataType.FLOAT else None


def _replace(node: ir.Node) -> Replacement:
    x, name = needed(node, 0), node.name or ""
    nodes = [make("Multiply", [x, x], {}, name)]
    if scalar(needed(node, 1)) == 3:
        nodes.append(make("Multiply", [nodes[0].outputs[0], x], {}, f"{name}.cube"))
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


POWER = Rule("power", frozenset({"Pow"}), _match, never, _replace)
