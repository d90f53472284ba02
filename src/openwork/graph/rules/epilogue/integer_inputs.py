"""What was dequantized goes into operators as the integers that it was."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS, Operator
from openwork.graph.layout import LAST
from openwork.graph.model import attributes, native_producer, only_consumer, operand
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.slots import filled, rebuilt, row_of, slot, slots


def _takes_either(row: Operator) -> list[str]:
    """The slots of values that may be integers of a scale of their own, of an operator without a weight."""
    if row.weighted:
        return []
    return [entry.name for entry in row.activations if entry.scale == f"{entry.name}_scale"]


ANCHORS = frozenset(name for name, row in OPERATORS.items() if _takes_either(row))


@dataclass(frozen=True)
class _Read:
    node: ir.Node
    slot: str
    dequantize: ir.Node


def _match(node: ir.Node) -> _Read | None:
    for name in _takes_either(row_of(node)):
        made = native_producer(slot(node, name), "Dequantize")
        if made is not None:
            return _Read(node, name, made)
    return None


def _replace(found: _Read) -> Replacement:
    read = attributes(found.dequantize)
    numbers = {f"{found.slot}_scale": read["x_scale"], f"{found.slot}_zero_point": read["x_zero_point"]}
    made = rebuilt(found.node, {found.slot: filled(found.dequantize, "x")}, **numbers)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


INTEGER_INPUTS = Rule("integers into what reads them", ANCHORS, _match, never, _replace, domain=DOMAIN)


KEEPS_BYTES = frozenset({"MaxPool", "GlobalMaxPool", "Reshape", "Slice", LAST})
"""Operators that give some of the numbers that they read, whatever rising function these went through.

Of the moves of channels one alone: the other one moves behind a Dequantize (`openwork.graph.layout`)."""


def _match_behind(node: ir.Node) -> _Read | None:
    made = native_producer(operand(node, 0), "Dequantize")
    return None if made is None or "y_scale" in attributes(node) else _Read(node, "x", made)


def _replace_behind(found: _Read) -> Replacement:
    made = rebuilt(found.node, {**slots(found.node), "x": filled(found.dequantize, "x")})
    back = rebuilt(found.dequantize, {"x": made.outputs[0]}, f"{found.node.name}.D")
    return Replacement([made, back], [(found.node.outputs[0], back.outputs[0])])


DEQUANTIZE_LATER = Rule(
    "dequantize behind what keeps numbers", KEEPS_BYTES, _match_behind, never, _replace_behind, domain=DOMAIN
)


_LATE = ("Reshape", "MaxPool")
"""Behind what a Quantize does not stay: all numbers, or the largest, which a rising function keeps; a NaN is
quantized to the least integer, and a pool passes over it."""


def _match_late(node: ir.Node) -> ir.Node | None:
    """A Quantize of one of these that nothing else reads; nor does anything else read what a pool does."""
    before = native_producer(operand(node, 0), *_LATE)
    if before is None or only_consumer(before.outputs[0]) is not node:
        return None
    return node if before.op_type == "Reshape" or only_consumer(filled(before, "x")) is before else None


def _replace_late(node: ir.Node) -> Replacement:
    before = native_producer(operand(node, 0), *_LATE)
    assert before is not None
    inner = rebuilt(node, {"x": filled(before, "x")})
    made = rebuilt(before, {"x": inner.outputs[0]})
    return Replacement([inner, made], [(node.outputs[0], made.outputs[0])])


QUANTIZE_EARLIER = Rule(
    "quantize before what keeps numbers",
    frozenset({"Quantize"}),
    _match_late,
    never,
    _replace_late,
    domain=DOMAIN,
)
