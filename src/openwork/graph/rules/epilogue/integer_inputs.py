"""What was dequantized goes into operators as the integers that it was."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS, Operator
from openwork.graph.layout import LAST
from openwork.graph.model import attributes, lone_native_producer, native_producer, needed, operand
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.rules.epilogue.quantized_outputs import takes_quantizer
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


@dataclass(frozen=True)
class _Kept:
    """A Quantize of what keeps the numbers that it reads, and nothing else reads it."""

    quantize: ir.Node
    keeps: ir.Node


def _match_kept(node: ir.Node) -> _Kept | None:
    """A pool reads several times what it makes: what nothing before it quantizes is less behind it."""
    keeps = lone_native_producer(needed(node, 0), "Reshape", "MaxPool", "GlobalMaxPool")
    if keeps is None:
        return None
    return _Kept(node, keeps) if keeps.op_type == "Reshape" or takes_quantizer(filled(keeps, "x")) else None


def _replace_kept(found: _Kept) -> Replacement:
    inner = rebuilt(found.quantize, {"x": filled(found.keeps, "x")})
    made = rebuilt(found.keeps, {"x": inner.outputs[0]})
    return Replacement([inner, made], [(found.quantize.outputs[0], made.outputs[0])])


QUANTIZE_EARLIER = Rule(
    "quantize before what keeps numbers",
    frozenset({"Quantize"}),
    _match_kept,
    never,
    _replace_kept,
    domain=DOMAIN,
)
