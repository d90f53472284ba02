"""Remove nodes that change nothing: Identity, Dropout, casts and moves to what is there already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import attributes, constant, dims, needed, operand, same_dims
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.slots import is_read

ANCHORS = frozenset(
    {
        "Identity",
        "Dropout",
        "Cast",
        "Reshape",
        "Expand",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Concat",
        "Slice",
        "Add",
        "Sub",
        "Mul",
        "Div",
    }
)
_MOVES = ("Reshape", "Expand", "Squeeze", "Unsqueeze", "Flatten")
_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


@dataclass(frozen=True)
class _Match:
    node: ir.Node
    kept: ir.Value


def _same(node: ir.Node, value: ir.Value) -> bool:
    result = node.outputs[0]
    op = node.op_type
    if op == "Identity":
        return True
    if op == "Dropout":
        training = constant(operand(node, 2))
        return (training is None and operand(node, 2) is None) or (
            training is not None and not bool(training)
        )
    if op == "Cast":
        return value.dtype is not None and int(value.dtype) == attributes(node)["to"]
    if op in _MOVES:
        return same_dims(value, result)
    if op == "Transpose":
        perm = attributes(node).get("perm")
        return perm is not None and list(perm) == list(range(len(perm)))
    if op == "Concat":
        return len(node.inputs) == 1
    return False


def _neutral(node: ir.Node) -> ir.Value | None:
    """The operand that x + 0, x - 0, x * 1 or x / 1 gives back in its own shape."""
    for index in (0, 1) if node.op_type in ("Add", "Mul") else (0,):
        value, other = needed(node, index), constant(needed(node, 1 - index))
        if (
            other is not None
            and np.all(other == _NEUTRAL[node.op_type])
            and same_dims(value, node.outputs[0])
        ):
            return value
    return None


def _match(node: ir.Node) -> _Match | None:
    if node.op_type in _NEUTRAL:
        kept = _neutral(node)
        return None if kept is None else _Match(node, kept)
    if not node.inputs or node.inputs[0] is None or constant(node.inputs[0]) is not None:
        return None
    if node.op_type == "Slice" and not _whole(node):
        return None
    if node.op_type == "Slice" or _same(node, node.inputs[0]):
        return _Match(node, node.inputs[0])
    return None


def _whole(node: ir.Node) -> bool:
    """Whether a Slice takes all of its input: by step 1, from the start to the end."""
    starts, ends, steps = (constant(operand(node, index)) for index in (1, 2, 4))
    if (
        starts is None
        or ends is None
        or not np.all(starts == 0)
        or (steps is not None and not np.all(steps == 1))
    ):
        return False
    return bool(np.all(ends >= np.iinfo(np.int32).max)) and dims(node.inputs[0]) is not None


def _check(found: _Match) -> str | None:
    if any(is_read(value) for value in found.node.outputs[1:]):
        return "its second output is read"
    output = found.node.outputs[0].is_graph_output()
    if output and (found.kept.producer() is None or found.kept.is_graph_output()):
        return "it makes an output of the graph out of an input or of another output"
    return None


def _replace(found: _Match) -> Replacement:
    return Replacement((), [(found.node.outputs[0], found.kept)])


REMOVE_IDENTITIES = Rule("remove identities", ANCHORS, _match, _check, _replace)
