"""The difference of two computed values of one shape: the sum with the other one negated, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import constant, make, needed, same_dims
from openwork.graph.rewrite import Replacement, Rule, home


@dataclass(frozen=True)
class _Difference:
    node: ir.Node
    a: ir.Value
    b: ir.Value
    reason: str | None = None


def negated(node: ir.Node, value: ir.Value, name: str) -> ir.Node:
    """A value times -1, which changes the sign of each number and nothing else, for a node of a graph."""
    minus = add_initializer(home(node), f"{name}.minus", np.array([-1], np.float32))
    return make("Multiply", {"a": value, "constant": minus}, {}, name)


def _match(node: ir.Node) -> _Difference | None:
    """Constants are left to the rules that take them into what makes or reads the value."""
    a, b = needed(node, 0), needed(node, 1)
    if constant(a) is not None or constant(b) is not None:
        return None
    if a.dtype != ir.DataType.FLOAT or b.dtype != ir.DataType.FLOAT:
        return None
    reason = None if same_dims(a, b) else "its operands do not have the same known shape"
    return _Difference(node, a, b, reason)


def _replace(found: _Difference) -> Replacement:
    name = found.node.name or ""
    minus = negated(found.node, found.b, f"{name}.b")
    made = make("Add", {"a": found.a, "b": minus.outputs[0]}, {}, name)
    return Replacement([minus, made], [(found.node.outputs[0], made.outputs[0])])


SUBTRACT = Rule("subtract", frozenset({"Sub"}), _match, lambda found: found.reason, _replace)
