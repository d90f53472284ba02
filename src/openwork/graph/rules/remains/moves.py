"""A Transpose of an image that moves its channels, as the exporters write it around what runs along them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.layout import PERMUTATION, moved
from openwork.graph.model import attributes, dims, needed
from openwork.graph.rewrite import Replacement, Rule, never


@dataclass(frozen=True)
class _Move:
    node: ir.Node
    op_type: str


def _match(node: ir.Node) -> _Move | None:
    perm, x = tuple(attributes(node).get("perm", ())), needed(node, 0)
    if x.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8) or dims(x) is None:
        return None
    return next((_Move(node, op_type) for op_type, order in PERMUTATION.items() if order == perm), None)


def _replace(found: _Move) -> Replacement:
    made = moved(found.op_type, needed(found.node, 0), found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


MOVE = Rule("transpose that moves channels", frozenset({"Transpose"}), _match, never, _replace)
