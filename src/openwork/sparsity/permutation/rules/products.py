"""Products with a weight, products of two computed tensors, attention, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from openwork.sparsity.permutation.relations import Use
from openwork.sparsity.permutation.rules.channels import enter, with_bias
from openwork.sparsity.permutation.values import Source, Value, aligned, positions
from openwork.sparsity.permutation.walk import (
    Consumer,
    Known,
    Rule,
    Walk,
    argument,
    name_of,
    place,
    rule,
    shape_of,
)

RULES: dict[str, Rule] = {}


@rule(RULES, "linear")
def linear(walk: Walk, node: fx.Node) -> Known:
    weight = walk.source(argument(node, 1, "weight"))
    if weight is None:
        return walk.refuse(node, f"They meet a weight that is computed, in {place(node)}.")
    return _product(walk, _Call(node, node.all_input_nodes[0]), weight, argument(node, 2, "bias"), out_axis=0)


@rule(RULES, "matmul", "mm", "addmm", "bmm", "baddbmm")
def matmul(walk: Walk, node: fx.Node) -> Known:
    adds = name_of(node) in ("addmm", "baddbmm")
    left, right = node.args[1:3] if adds else node.args[:2]
    bias = node.args[0] if adds else None
    assert isinstance(left, fx.Node)
    assert isinstance(right, fx.Node)
    weight = walk.source(right)
    if weight is not None and len(weight.shape) == 2:
        return _product(walk, _Call(node, left), weight, bias, out_axis=1)
    if adds:
        return walk.refuse(node, f"They reach {place(node)}, which is not followed.")
    return _contraction(walk, node, walk.value(left), walk.value(right))


@dataclass(frozen=True)
class _Call:
    """A product's node and the node that its channels come from."""

    node: fx.Node
    first: fx.Node


def _product(walk: Walk, call: _Call, weight: Source, bias: Any, out_axis: int) -> Known:
    node, first = call.node, call.first
    incoming = weight.axis(walk.relations, 1 - out_axis)
    enter(walk, walk.value(first), incoming, axis=-1, node=node)
    stored = 1 - out_axis if weight.swapped else out_axis
    use = Use(weight.name, "axis", 1 - stored)
    walk.consumers.setdefault(weight.name, Consumer(use, stored, 1 - stored))
    outgoing = weight.axis(walk.relations, out_axis)
    return with_bias(walk, node, outgoing, bias, axis=len(shape_of(node)) - 1)


def _contraction(walk: Walk, node: fx.Node, left: Value, right: Value) -> Known:
    """A product of two computed tensors [..., m, k] x [..., k, n]: heads stay, channels move within them."""
    rank = max(len(left.shape), len(right.shape))
    left, right = aligned(left, rank), aligned(right, rank)
    k_left, k_right = rank - 1, rank - 2
    batch = range(rank - 2)
    for one in (left, right):
        if one.atoms is not None:
            walk.relations.tell_apart(one.atoms, positions(one.atoms, batch))
    meets = k_left in left.varying or k_right in right.varying
    rows, columns = rank - 2 in left.varying, rank - 1 in right.varying
    if meets:
        if rows or columns or k_left not in left.varying or k_right not in right.varying:
            return walk.refuse(
                node, f"They are multiplied by values that keep their order, in {place(node)}."
            )
        assert left.atoms is not None
        assert right.atoms is not None
        walk.relations.join(
            left.atoms, right.atoms.transpose(-1, -2), f"They meet fixed channels, in {place(node)}."
        )
        return Value(None, shape_of(node))
    if rows and columns:
        return walk.refuse(node, f"Channels become both rows and columns, in {place(node)}.")
    kept = left if rows else right
    return Value(kept.atoms if rows or columns else None, shape_of(node))


@rule(RULES, "scaled_dot_product_attention")
def attention(walk: Walk, node: fx.Node) -> Known:
    query, key, value = (walk.value(each) for each in node.args[:3])  # type: ignore[arg-type]
    if query.shape[:-2] != key.shape[:-2]:
        return walk.refuse(node, f"Queries and keys have different numbers of heads, in {place(node)}.")
    swapped = Value(
        None if key.atoms is None else key.atoms.transpose(-1, -2),
        (*key.shape[:-2], key.shape[-1], key.shape[-2]),
    )
    _contraction(walk, node, query, swapped)
    weights = Value(None, (*query.shape[:-1], key.shape[-2]))
    return _contraction(walk, node, weights, value)


@rule(RULES, "embedding")
def embedding(walk: Walk, node: fx.Node) -> Known:
    weight = walk.source(node.args[0])
    if weight is None:
        return walk.refuse(node, f"They meet a table that is computed, in {place(node)}.")
    return with_bias(walk, node, weight.axis(walk.relations, 1), None, axis=len(shape_of(node)) - 1)
