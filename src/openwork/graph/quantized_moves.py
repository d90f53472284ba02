"""Moves of channels and quantizers of floats that meet: one pass for both, or the quantizer alone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.layout import FIRST, LAST
from openwork.graph.model import attributes, make, native_producer, needed, only_consumer
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.slots import filled


@dataclass(frozen=True)
class _Undone:
    node: ir.Node
    source: ir.Value


def _match_undone(node: ir.Node) -> _Undone | None:
    """A move to channels last that quantizes what was moved to channels first: a Quantize alone."""
    other = native_producer(filled(node, "x"), FIRST)
    return _Undone(node, filled(other, "x")) if other is not None and attributes(node) else None


def _replace_undone(found: _Undone) -> Replacement:
    made = make("Quantize", {"x": found.source}, attributes(found.node), found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


CANCEL_QUANTIZED = Rule(
    "quantize without moves of channels",
    frozenset({LAST}),
    _match_undone,
    never,
    _replace_undone,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Rounded:
    """A move and a Quantize of floats, one behind the other and read by nothing else, and what they read."""

    last: ir.Node
    quantize: ir.Node
    x: ir.Value


def _match_rounded(node: ir.Node) -> _Rounded | None:
    first = native_producer(needed(node, 0), "Quantize" if node.op_type == LAST else LAST)
    move = node if node.op_type == LAST else first
    if first is None or move is None or attributes(move):
        return None
    if only_consumer(first.outputs[0]) is not node or needed(first, 0).dtype != ir.DataType.FLOAT:
        return None
    return _Rounded(node, node if node.op_type == "Quantize" else first, needed(first, 0))


def _replace_rounded(found: _Rounded) -> Replacement:
    numbers = attributes(found.quantize)
    made = make(LAST, {"x": found.x}, numbers, found.quantize.name or "")
    return Replacement([made], [(found.last.outputs[0], made.outputs[0])])


QUANTIZE_AND_MOVE = Rule(
    "quantize and move channels in one pass",
    frozenset({"Quantize", LAST}),
    _match_rounded,
    never,
    _replace_rounded,
    domain=DOMAIN,
)
