"""A reduction over height and width that drops its axes: one that keeps them, and a Reshape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.layout import IMAGE_AXES
from openwork.graph.model import attributes, constant, dims, needed, operand
from openwork.graph.rewrite import Replacement, Rule, home, never
from openwork.graph.rules.functions.pooling import SPATIAL


@dataclass(frozen=True)
class _Dropped:
    node: ir.Node
    channels: int


def _match(node: ir.Node) -> _Dropped | None:
    shape, given = dims(needed(node, 0)), attributes(node)
    listed = constant(operand(node, 1))
    over = given.get("axes") if listed is None else listed.reshape(-1).tolist()
    if shape is None or len(shape) != IMAGE_AXES or over is None or given.get("keepdims", 1):
        return None
    spatial = sorted(axis % IMAGE_AXES for axis in over) == list(SPATIAL)
    return _Dropped(node, shape[1]) if spatial and isinstance(shape[1], int) else None


def _replace(found: _Dropped) -> Replacement:
    node, old = found.node, found.node.outputs[0]
    batch = (dims(old) or (None,))[0]
    kept = ir.Node(
        "", node.op_type, node.inputs, {**node.attributes, "keepdims": ir.AttrInt64("keepdims", 1)}
    )
    kept.name = node.name
    kept.outputs[0].shape, kept.outputs[0].type = ir.Shape([batch, found.channels, 1, 1]), old.type
    target = add_initializer(home(node), f"{node.name}.shape", np.array([0, found.channels], np.int64))
    flat = ir.Node("", "Reshape", [kept.outputs[0], target], name=f"{node.name}.flat")
    flat.outputs[0].shape, flat.outputs[0].type = old.shape, old.type
    return Replacement([kept, flat], [(old, flat.outputs[0])])


DROPPED_AXES = Rule(
    "axes that a reduction drops", frozenset({"ReduceMean", "ReduceMax"}), _match, never, _replace
)
