"""Operators that give each element its own: activations, sums, copies, expansions."""

from __future__ import annotations

from torch import fx

from openwork.sparsity.permutation.values import Value, combined
from openwork.sparsity.permutation.walk import Known, Rule, Walk, place, rule, shape_of

RULES: dict[str, Rule] = {}

_SAME = [
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "to",
    "_to_copy",
    "type_as",
    "contiguous",
    "clone",
    "alias",
    "detach",
    "lift_fresh_copy",
    "hardswish",
    "masked_fill",
    "where",
    "float",
    "half",
    "log_softmax_backward",
    "hardtanh",
    "rrelu",
    "elu",
    "leaky_relu",
]


_EXPANSIONS = ("expand", "expand_as", "broadcast_to")


@rule(RULES, *_SAME)
def pointwise(walk: Walk, node: fx.Node) -> Known:
    operands = [walk.value(each) for each in node.all_input_nodes]
    return combined(walk.relations, operands, shape_of(node), place(node))


@rule(RULES, *_EXPANSIONS)
def expansion(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.all_input_nodes[0])
    lead = len(shape_of(node)) - len(value.shape)
    atoms = None if value.atoms is None else value.atoms.view((1,) * lead + tuple(value.atoms.shape))
    return Value(atoms, (1,) * lead + value.shape, value.reason)
