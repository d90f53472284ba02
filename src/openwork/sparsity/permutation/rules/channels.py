"""Channels that enter a weight, and those that leave it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from openwork.sparsity.permutation.values import Value, positions
from openwork.sparsity.permutation.walk import Walk, place, shape_of


def enter(walk: Walk, value: Value, incoming: Tensor, axis: int, node: fx.Node) -> None:
    """The channels along `axis` of a value are the ones that a weight's `incoming` atoms,
    i64 [channels], multiply.
    """
    axis %= len(value.shape)
    if value.atoms is None or value.atoms.shape[axis] != len(incoming):
        unknown = f"They enter {place(node)} in an order that a step before it sets."
        walk.relations.fix(incoming, value.reason or unknown)
        if value.atoms is not None:
            walk.relations.fix(
                value.atoms.flatten(), f"They enter {place(node)} beside channels that keep their order."
            )
        return
    spread = incoming.view([-1 if a == axis else 1 for a in range(value.atoms.ndim)])
    walk.relations.join(value.atoms, spread, f"They meet channels that cannot move, in {place(node)}.")
    others = [a for a in value.varying if a != axis]
    if others:
        walk.relations.tell_apart(value.atoms, positions(value.atoms, others))


def with_bias(walk: Walk, node: fx.Node, outgoing: Tensor, bias: Any, axis: int) -> Value:
    shape = shape_of(node)
    outgoing = outgoing.view([-1 if a == axis else 1 for a in range(len(shape))])
    if isinstance(bias, fx.Node):
        value = walk.value(bias)
        if value.atoms is not None:
            atoms = value.atoms.view(outgoing.shape)
            walk.relations.join(outgoing, atoms, f"They meet a bias that cannot move, in {place(node)}.")
        elif max(value.shape, default=1) > 1:
            walk.relations.fix(outgoing.flatten(), f"They meet a computed bias, in {place(node)}.")
    return Value(outgoing, shape)


def block_of_channels(channels: int, groups: int) -> Tensor:
    return torch.arange(channels) // (channels // groups)
