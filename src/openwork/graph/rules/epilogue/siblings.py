"""Queries, keys and values that are products of one input become one, and attention reads it packed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import (
    add_initializer,
    attributes,
    constant,
    make,
    needed,
    only_consumer,
    operand,
    with_attributes,
)
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.epilogue.followers import is_plain, linear_of, output_count
from openwork.graph.stated_patterns import carry_pattern


@dataclass(frozen=True)
class _Siblings:
    attention: ir.Node
    linears: tuple[ir.Node, ...]


def _match_siblings(node: ir.Node) -> _Siblings | None:
    if attributes(node)["packed"]:
        return None
    linears = tuple(linear_of(needed(node, index)) for index in range(3))
    found = tuple(linear for linear in linears if linear is not None)
    return _Siblings(node, found) if len(found) == 3 else None


def _check_siblings(found: _Siblings) -> str | None:
    first = found.linears[0]
    for linear in found.linears:
        if linear.op_type != first.op_type or linear.inputs[0] is not first.inputs[0]:
            return "queries, keys and values are not products of the same input of the same kind"
        if attributes(linear) != attributes(first):
            return "queries, keys and values do not have the same quantizer and activation"
        if not is_plain(linear):
            return "a residual, an activation or a quantizer follows queries, keys or values"
        if only_consumer(linear.outputs[0]) is not found.attention:
            return "queries, keys or values are read by other nodes too"
    return None


def packed_name(names: list[str]) -> str:
    """layer.self.query, layer.self.key, layer.self.value -> layer.self.qkv."""
    stems = {name.rpartition(".")[0] for name in names}
    return f"{stems.pop()}.qkv".lstrip(".") if len(stems) == 1 else "+".join(names)


def _concatenated(found: _Siblings, index: int) -> np.ndarray | None:
    arrays = []
    for linear in found.linears:
        array = constant(operand(linear, index))
        arrays.append(np.zeros(output_count(linear), np.float32) if array is None else array)
    given = any(operand(linear, index) is not None for linear in found.linears)
    return np.concatenate(arrays) if given else None


def _replace_siblings(found: _Siblings) -> Replacement:
    first, graph = found.linears[0], home(found.attention)
    name = packed_name([linear.name or "" for linear in found.linears])
    slots = ("weight", "weight_scale", "bias") if first.op_type == "Linear" else ("weight", "bias")
    inputs: list[ir.Value | None] = [first.inputs[0], None]
    for index, slot in enumerate(slots, start=2):
        array = _concatenated(found, index)
        made = None if array is None else add_initializer(graph, f"{name}.{slot}", array)
        inputs.append(made and carry_pattern([operand(linear, index) for linear in found.linears], made))
    linear = make(first.op_type, inputs, attributes(first), name)
    values = with_attributes(found.attention, packed=1)
    attention = make(
        "Attention", [linear.outputs[0], operand(found.attention, 3)], values, found.attention.name or ""
    )
    return Replacement([linear, attention], [(found.attention.outputs[0], attention.outputs[0])])


PACK_SIBLINGS = Rule(
    "pack queries, keys and values",
    frozenset({"Attention"}),
    _match_siblings,
    _check_siblings,
    _replace_siblings,
    domain=DOMAIN,
)
