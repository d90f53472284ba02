"""Looking for weights and masks that break their rule."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from openwork.patterns.pattern import BlockPattern, GroupPattern, Violation
from openwork.sparsity.masks.mask import spot
from openwork.sparsity.masks.masked_tensors import whole_mask
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import full

MOST = 3
"""How many faults of one weight are named."""


def faults(prunables: Iterable[Prunable], finished: bool, global_scope: bool) -> list[str]:
    """Every place where a mask or a weight breaks its rule, as sentences; empty if all holds.

    A weight is finite, and zero where its mask drops it. Where the schedule is `finished`, a mask keeps to
    its pattern; block patterns of a global budget keep to it over all layers together.
    """
    found: list[str] = []
    shared: list[Prunable] = []
    for prunable in prunables:
        if finished:
            if global_scope and isinstance(prunable.pattern, BlockPattern):
                shared.append(prunable)
            else:
                found += _mask_faults(prunable)
        found += _weight_faults(prunable)
    return found + _budget_faults(shared)


def _mask_faults(prunable: Prunable) -> list[str]:
    stack = prunable.view.matrices(whole_mask(prunable)).cpu().numpy()
    return [
        f"The mask of {prunable.name} breaks its pattern: {_located(prunable, violation)}."
        for violation in prunable.pattern.violations(stack, limit=MOST)
    ]


def _located(prunable: Prunable, violation: Violation) -> str:
    if prunable.view.stacked[0] == 1:
        return str(violation).replace("matrix 0, ", "")
    place = "" if violation.matrix is None else prunable.view.place(violation.matrix)
    return str(violation).replace(f"matrix {violation.matrix}", place)


def _weight_faults(prunable: Prunable) -> list[str]:
    weight, mask = full(prunable.weight), whole_mask(prunable)
    found = [
        f"The weight of {prunable.name} is {weight[tuple(place)].item():g} at {spot(place)}, where its mask "
        f"drops it{_group_of(prunable, place)}."
        for place in ((weight != 0) & ~mask).nonzero()[:MOST].tolist()
    ]
    if not torch.isfinite(weight).all():
        found.append(f"The weight of {prunable.name} holds NaN or infinity.")
    return found


def _group_of(prunable: Prunable, place: list[int]) -> str:
    pattern = prunable.pattern
    if not isinstance(pattern, GroupPattern):
        return ""
    column = place[0] % prunable.view.stacked[2] if prunable.view.kind == "conv_transpose" else place[1]
    return f" (group {column // pattern.group} of {pattern})"


def _budget_faults(prunables: list[Prunable]) -> list[str]:
    kept, wanted = 0, 0
    for prunable in prunables:
        pattern = prunable.pattern
        assert isinstance(pattern, BlockPattern)
        live = pattern.live(prunable.view.matrices(whole_mask(prunable)).cpu().numpy())
        kept += int(live.sum())
        wanted += live.size - pattern.zero_blocks(live.size)
    # Each layer's share is rounded down to whole blocks on its own, so a block a layer may remain.
    if kept > wanted + len(prunables):
        return [f"All layers together keep {kept} blocks where their patterns allow {wanted}."]
    return []
