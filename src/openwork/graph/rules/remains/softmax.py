"""Softmax along the last axis."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import attributes, dims, make, needed
from openwork.graph.rewrite import Replacement, Rule


def _match(node: ir.Node) -> ir.Node:
    return node


def _check(node: ir.Node) -> str | None:
    shape, axis = dims(needed(node, 0)), int(attributes(node).get("axis", -1))
    if needed(node, 0).dtype != ir.DataType.FLOAT or not shape:
        return "its input is not float32 of a known rank"
    if axis not in (-1, len(shape) - 1):
        return "it does not run along the last axis"
    return None


def _replace(node: ir.Node) -> Replacement:
    made = make("Softmax", [needed(node, 0)], {}, node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


SOFTMAX = Rule("softmax", frozenset({"Softmax"}), _match, _check, _replace)
