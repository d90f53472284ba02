"""Reshape, Flatten, Squeeze and Unsqueeze: the same elements under another shape."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import constant, dims, needed
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.views import reshaped, target_shape

ANCHORS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class _Reshaped:
    node: ir.Node
    target: tuple[int, ...] | str


def _match(node: ir.Node) -> _Reshaped | None:
    if constant(needed(node, 0)) is not None:
        return None
    return _Reshaped(node, target_shape(dims(needed(node, 0)), dims(node.outputs[0])))


def _check(found: _Reshaped) -> str | None:
    if needed(found.node, 0).dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "its input is neither float32 nor uint8"
    return found.target if isinstance(found.target, str) else None


def _replace(found: _Reshaped) -> Replacement:
    node = found.node
    made = reshaped(needed(node, 0), dims(node.outputs[0]) or (), node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


RESHAPE = Rule("reshape", ANCHORS, _match, _check, _replace)
