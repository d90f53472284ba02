"""Operators that sum or choose along axes: softmax, means, pools."""

from __future__ import annotations

from torch import Tensor, fx

from openwork.sparsity.permutation.values import Value, positions
from openwork.sparsity.permutation.walk import Known, Rule, Walk, argument, name_of, place, rule, shape_of

RULES: dict[str, Rule] = {}

_REDUCTIONS = [
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "norm",
    "linalg_vector_norm",
    "logsumexp",
    "all",
    "any",
    "prod",
]


_POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_nearest1d",
    "constant_pad_nd",
    "pad",
]


@rule(RULES, "softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    if value.atoms is not None:
        axis = argument(node, 1, "dim") % len(value.shape)
        walk.relations.tell_apart(
            value.atoms, positions(value.atoms, [a for a in value.varying if a != axis])
        )
    return value


@rule(RULES, *_REDUCTIONS)
def reduction(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    if value.atoms is None:
        return Value(None, shape_of(node), value.reason)
    rank, output = len(value.shape), node.meta["val"]
    if name_of(node) in ("max", "min") and not isinstance(output, Tensor):
        return walk.refuse(node, f"They reach {place(node)}, which gives their places.")
    index = 2 if name_of(node) in ("norm", "linalg_vector_norm") else 1
    dims = argument(node, index, "dim")
    dims = range(rank) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    reduced = {axis % rank for axis in dims}
    atoms = value.atoms
    if reduced & set(value.varying):
        walk.relations.tell_apart(atoms, positions(atoms, [a for a in value.varying if a not in reduced]))
        return None
    keeps = output.ndim == rank
    for axis in sorted(() if keeps else reduced, reverse=True):
        atoms = atoms.squeeze(axis)
    return Value(atoms, tuple(output.shape))


@rule(RULES, *_POOLS)
def pool(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    output = node.meta["val"]
    if value.atoms is None:
        return Value(None, shape_of(node), value.reason)
    spatial = [
        a for a in value.varying if not isinstance(output, Tensor) or output.shape[a] != value.shape[a]
    ]
    if not isinstance(output, Tensor) or spatial or (value.varying and max(value.varying) > 1):
        return walk.refuse(node, f"{place(node)} works along the channels.")
    return Value(value.atoms, tuple(output.shape))
