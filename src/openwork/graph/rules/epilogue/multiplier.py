"""A multiplier of each channel in front of a quantizer (scale migration) goes into what makes the value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    consumers,
    dims,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, home, never, precedes
from openwork.graph.rules.epilogue.quantized_outputs import BESIDE, IN_PLACE, both, made_by, quantizer
from openwork.graph.slots import rebuilt, row_of


def _equal_multiplier(node: ir.Node, other: ir.Node) -> bool:
    mine, theirs = split_constant(node), split_constant(other)
    return mine is not None and theirs is not None and np.array_equal(mine[1], theirs[1])


def _match_shared(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """An earlier Mul of the same value with an equal constant."""
    split = split_constant(node)
    if split is None or node.outputs[0].is_graph_output():
        return None
    for other in consumers(split[0]):
        if other is not node and other.op_type == "Mul" and _equal_multiplier(node, other):
            return (node, other) if precedes(other, node) else None
    return None


def _replace_shared(found: tuple[ir.Node, ir.Node]) -> Replacement:
    node, other = found
    return Replacement((), [(node.outputs[0], other.outputs[0])])


SHARE_MULTIPLIER = Rule("share multiplier", frozenset({"Mul"}), _match_shared, never, _replace_shared)


@dataclass(frozen=True)
class _Multiplied:
    quantize: ir.Node
    mul: ir.Node
    maker: ir.Node
    multiplier: Array


TAKES = frozenset(row.name for row in OPERATORS.values() if row.takes("y_multiplier"))


def _match(quantize: ir.Node, op_types: frozenset[str]) -> _Multiplied | None:
    mul = producer(needed(quantize, 0), "Mul")
    split = split_constant(mul) if mul is not None else None
    maker = made_by(split[0], TAKES & op_types) if split is not None else None
    if mul is None or split is None or maker is None or not _served(maker):
        return None
    return _Multiplied(quantize, mul, maker, split[1])


def _served(maker: ir.Node) -> bool:
    """Whether the maker has what its row says that a multiplier needs, a quantizer aside."""
    row = row_of(maker)
    (entry,) = [slot for slot in row.inputs if slot.name == "y_multiplier"]
    return all(name in attributes(maker) for name in entry.needs if name != "y_scale")


def _match_output(node: ir.Node) -> _Multiplied | None:
    return _match(node, IN_PLACE)


def _match_norm(node: ir.Node) -> _Multiplied | None:
    return _match(node, frozenset(BESIDE))


def _check(found: _Multiplied) -> str | None:
    width = (dims(found.maker.outputs[0]) or (None,))[-1]
    if found.multiplier.size != width or found.multiplier.shape[-1] != width:
        return "the constant does not have one number for each channel"
    if found.multiplier.dtype != np.float32 or not np.all(
        np.isfinite(found.multiplier) & (found.multiplier > 0)
    ):
        return "the constant is not positive finite float32"
    if only_consumer(found.mul.outputs[0]) is None:
        return "the multiplied value is read by other nodes too"
    if "y_scale" in attributes(found.maker):
        return "the value is already quantized with another scale"
    return None


def _check_output(found: _Multiplied) -> str | None:
    if only_consumer(found.maker.outputs[0]) is None:
        return "the product is read by other nodes too"
    return _check(found)


def _made(found: _Multiplied) -> ir.Node:
    maker, name = found.maker, f"{found.maker.name or ''}.y_multiplier"
    value = add_initializer(home(found.quantize), name, found.multiplier.reshape(-1))
    return rebuilt(maker, {"y_multiplier": value}, **quantizer(found.quantize))


def _replace_output(found: _Multiplied) -> Replacement:
    made = _made(found)
    return Replacement([made], [(found.quantize.outputs[0], made.outputs[0])])


def _replace_norm(found: _Multiplied) -> Replacement:
    return both(found.maker, found.quantize, _made(found))


_ANCHORS = frozenset({"Quantize"})

MULTIPLIED_OUTPUT = Rule(
    "multiplier and quantize into their producer",
    _ANCHORS,
    _match_output,
    _check_output,
    _replace_output,
    domain=DOMAIN,
)
MULTIPLIED_NORM = Rule(
    "multiplier and quantize into layer norm",
    _ANCHORS,
    _match_norm,
    _check,
    _replace_norm,
    domain=DOMAIN,
)
