"""Queries, keys and values that are products of one input become one, and attention reads it packed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    attributes,
    constant,
    only_consumer,
)
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.followed import channels, is_plain, maker
from openwork.graph.slots import filled, rebuilt, row_of, slot
from openwork.graph.stated_patterns import carry_pattern


@dataclass(frozen=True)
class _Siblings:
    attention: ir.Node
    linears: tuple[ir.Node, ...]


PARTS = ("q", "k", "v")


def _match_siblings(node: ir.Node) -> _Siblings | None:
    linears = [linear for part in PARTS if (linear := maker(slot(node, part))) is not None]
    return _Siblings(node, tuple(linears)) if len(linears) == len(PARTS) else None


def _check_siblings(found: _Siblings) -> str | None:
    first = found.linears[0]
    for linear in found.linears:
        if linear.op_type != first.op_type or filled(linear, "x") is not filled(first, "x"):
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


def _concatenated(found: _Siblings, name: str) -> np.ndarray | None:
    """One tensor of all three, channel after channel; zeros where only others have it."""
    arrays = [constant(slot(linear, name)) for linear in found.linears]
    if all(array is None for array in arrays):
        return None
    both = zip(arrays, found.linears, strict=True)
    return np.concatenate(
        [np.zeros(channels(linear), np.float32) if array is None else array for array, linear in both]
    )


def _replace_siblings(found: _Siblings) -> Replacement:
    first, graph = found.linears[0], home(found.attention)
    name = packed_name([linear.name or "" for linear in found.linears])
    changed: dict[str, ir.Value | None] = {}
    for entry in row_of(first).tensors:
        array = _concatenated(found, entry.name)
        if array is not None:
            made = add_initializer(graph, f"{name}.{entry.name}", array)
            changed[entry.name] = carry_pattern([slot(linear, entry.name) for linear in found.linears], made)
    linear = rebuilt(first, changed, name)
    attention = rebuilt(found.attention, {"q": linear.outputs[0], "k": None, "v": None})
    return Replacement(
        [linear, attention], list(zip(found.attention.outputs, attention.outputs, strict=True))
    )


PACK_SIBLINGS = Rule(
    "pack queries, keys and values",
    frozenset({"Attention"}),
    _match_siblings,
    _check_siblings,
    _replace_siblings,
    domain=DOMAIN,
)
