"""The rules of all operators by their names."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from openwork.sparsity.permutation.rules import (
    convolutions,
    elementwise,
    norms,
    products,
    rearrangements,
    reductions,
)
from openwork.sparsity.permutation.rules.elementwise import pointwise
from openwork.sparsity.permutation.walk import Known, Rule, Walk, name_of, place

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **rearrangements.RULES,
    **products.RULES,
    **reductions.RULES,
    **convolutions.RULES,
    **norms.RULES,
}


def apply(walk: Walk, node: fx.Node) -> Known:
    """What is known after `node`, an operator."""
    name = name_of(node)
    if name in RULES:
        return RULES[name](walk, node)
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and (
        torch.Tag.pointwise in target.tags or _inplace_twin(target)
    ):
        return pointwise(walk, node)
    if not isinstance(node.meta.get("val"), Tensor | list | tuple):
        return None
    return walk.refuse(node, f"They reach {place(node)}, which is not followed.")


def _inplace_twin(target: torch._ops.OpOverload) -> bool:
    packet = getattr(torch.ops.aten, target._schema.name.split("::")[1].rstrip("_"), None)
    twin = getattr(packet, target._overloadname, None) if packet is not None else None
    return twin is not None and torch.Tag.pointwise in twin.tags
