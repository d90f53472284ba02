"""Sharing a model's zeros out among its layers.

A local budget gives every layer its pattern's fraction of zeros. A global one ranks what may go next over all
layers together, so that layers that need their weights keep more of them and the model as a whole has the
zeros that its patterns ask for. Scores of different layers are compared as they are, per weight (Neural
Compressor's default, `pruning_scope="global"` with at most 0.98 in a layer).

Blocks are ranked by blocks. N:M fixes the zeros of each group at the end, so there a global budget matters
only on the way: which layers give up their share first. Blocks and N:M are two budgets, since zeros that one
of them does not take the other could not make up for without breaking a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.masks.partial import mask_at
from openwork.sparsity.masks.selection import least, ranks

CEILING = 0.98
"""The largest fraction of blocks that a global budget takes from one layer, unless told otherwise."""

_SLACK = 1e-9


@dataclass(frozen=True)
class _Units:
    """What one layer may drop. values: [n], the score of each unit per weight. size: weights in a unit.
    whole: units that the layer has, of which those in `values` may go. wanted: units that its pattern drops.
    """

    values: Tensor
    size: int
    whole: int
    wanted: float


def global_masks(
    scores: Mapping[str, Tensor],
    patterns: Mapping[str, Pattern],
    fraction: float = 1.0,
    ceiling: float = CEILING,
) -> dict[str, Tensor]:
    """The mask of each layer, bool [stack, out, in], with the zeros that `global_zeros` gives it."""
    zeros = global_zeros(scores, patterns, fraction, ceiling)
    return {name: mask_at(scores[name], pattern, zeros[name]) for name, pattern in patterns.items()}


def global_zeros(
    scores: Mapping[str, Tensor],
    patterns: Mapping[str, Pattern],
    fraction: float = 1.0,
    ceiling: float = CEILING,
) -> dict[str, float]:
    """The fraction of zeros of each layer when all layers are ranked together (`mask_at` takes it).

    scores: f32 [stack, out, in], finite, at least for the names in `patterns`. fraction: how much of the
    patterns' own zeros all layers together have, from 0 to 1. ceiling: the largest fraction of the blocks
    of one layer that may go; N:M never drops more than it states.
    Raises ValueError for numbers outside of these, or a ceiling below what the patterns ask for.
    """
    _check(fraction, ceiling)
    blocks = {n: _blocks(scores[n], p, ceiling) for n, p in patterns.items() if isinstance(p, BlockPattern)}
    groups = {n: _elements(scores[n], p) for n, p in patterns.items() if isinstance(p, GroupPattern)}
    shares = {**_shared_out(blocks, fraction, ceiling), **_shared_out(groups, fraction, ceiling)}
    return {name: shares[name] for name in patterns}


def _check(fraction: float, ceiling: float) -> None:
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"The fraction of the patterns' zeros lies between 0 and 1, but it is {fraction}.")
    if not 0.0 < ceiling <= 1.0:
        raise ValueError(f"The ceiling of a layer's zeros lies in (0, 1], but it is {ceiling}.")


def _blocks(scores: Tensor, pattern: BlockPattern, ceiling: float) -> _Units:
    rows, columns = pattern.rows, pattern.columns
    padded = functional.pad(scores, (0, -scores.shape[2] % columns, 0, -scores.shape[1] % rows))
    blocks = padded.reshape(len(padded), padded.shape[1] // rows, rows, -1, columns)
    values = (blocks.sum(dim=(2, 4)) / (rows * columns)).flatten()
    most = floor(ceiling * len(values) + _SLACK)
    return _Units(values[least(values, most)], rows * columns, len(values), pattern.zeros * len(values))


def _elements(scores: Tensor, pattern: GroupPattern) -> _Units:
    """The weights of each group that its final mask drops, those of a shared mask as one."""
    padded = functional.pad(scores, (0, 0, 0, -scores.shape[1] % pattern.shared))
    summed = padded.reshape(len(padded), -1, pattern.shared, padded.shape[2]).sum(dim=2) / pattern.shared
    groups = functional.pad(summed, (0, -summed.shape[2] % pattern.group), value=-torch.inf)
    groups = groups.reshape(-1, pattern.group)
    values = groups[ranks(groups) >= pattern.kept]
    return _Units(values, pattern.shared, groups.numel(), float(len(values)))


def _shared_out(layers: Mapping[str, _Units], fraction: float, ceiling: float) -> dict[str, float]:
    """The fraction of each layer's units that go, the lowest scores of all layers first."""
    if not layers:
        return {}
    units = list(layers.values())
    wanted = fraction * sum(layer.wanted * layer.size for layer in units)
    largest = max(layer.size for layer in units)
    most = sum(len(layer.values) * layer.size for layer in units)
    # Each layer's ceiling is rounded down to whole units.
    if wanted > most + len(units) * largest:
        weights = sum(layer.whole * layer.size for layer in units)
        raise ValueError(
            f"With a ceiling of {ceiling:g} for each layer at most {most / weights:.3g} of the weights can "
            f"be zero, but the patterns ask for {wanted / weights:.3g}; raise the ceiling or ask for fewer "
            "zeros."
        )
    taken = _taken(units, wanted)
    return {name: taken[i] / layer.whole for i, (name, layer) in enumerate(layers.items())}


def _taken(units: list[_Units], wanted: float) -> list[int]:
    """How many units of each layer go so that `wanted` weights do."""
    values = torch.cat([layer.values for layer in units])
    lengths = [len(layer.values) for layer in units]
    sizes = {layer.size for layer in units}
    if len(sizes) == 1:
        chosen = least(values, floor(wanted / sizes.pop() + _SLACK * len(values) + _SLACK))
    else:
        order = values.argsort(stable=True)
        weights = torch.cat([torch.full((len(u.values),), u.size, device=values.device) for u in units])
        chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
        chosen[order] = weights[order].cumsum(0) <= wanted * (1 + _SLACK) + _SLACK
    return [int(part.sum()) for part in torch.split(chosen, lengths)]
