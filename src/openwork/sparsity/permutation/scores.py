"""From a class of channels and the weights around it to a problem for the search, and what a pattern keeps
of a weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.permutation.graph import ChannelClass
from openwork.sparsity.permutation.problem import Problem, nested
from openwork.sparsity.permutation.relations import Use
from openwork.sparsity.permutation.sorting_network import largest_sum, parted
from openwork.sparsity.permutation.walk import Consumer

Score = Literal["magnitude", "energy", "output"]
Sides = Literal["both", "inputs", "outputs"]


@dataclass(frozen=True)
class Layers:
    """The weights that a pattern is meant for, by qualified name, and how they are scored.

    sides : whose scores an order is looked for by: of the layers that read the channels ("inputs"), of those
    that make them and share masks among them ("outputs"), or both. importance : what w^2 is multiplied with,
    of the weights' shapes, for the score "output" (`importance.py`).
    """

    weights: Mapping[str, Tensor]
    consumers: Mapping[str, Consumer]
    pattern: GroupPattern
    score: Score = "magnitude"
    sides: Sides = "both"
    importance: Mapping[str, Tensor] = field(default_factory=dict)

    def matrices(self, name: str) -> Tensor:
        """A weight's scores, f32 [blocks * taps, out, in], as patterns see them."""
        consumer = self.consumers[name]
        weight = self.weights[name].detach().float()
        scores = weight.abs() if self.score == "magnitude" else weight.square()
        scores = scores * self.importance[name] if self.score == "output" else scores
        scores = (
            scores.movedim((consumer.out_axis, consumer.in_axis), (0, 1)).flatten(2)
            if scores.ndim > 2
            else (scores if consumer.out_axis == 0 else scores.t())[:, :, None]
        )
        return parted(scores, 0, consumer.blocks).permute(0, 3, 1, 2).flatten(0, 1)

    def kept(self, name: str) -> tuple[float, float]:
        """What the pattern keeps of a weight's score, and all of it."""
        pooled = _pooled(self.matrices(name), self.pattern.shared)
        groups = _grouped(pooled, self.pattern.group)
        return float(largest_sum(groups.unbind(-1), self.pattern.kept).double().sum()), float(
            pooled.double().sum()
        )

    def around(self, channels: ChannelClass) -> list[str]:
        """The weights whose kept score depends on the order of a class."""
        return [
            name
            for name in self.weights
            if self.consumers[name].use in channels.places
            or (self.pattern.shared > 1 and _output_use(name, self.consumers[name]) in channels.places)
        ]


@dataclass(frozen=True)
class Posed:
    """A class as the search takes it. slots : i64 [places], the channel in each place that counts,
    group by group.
    """

    problem: Problem
    slots: np.ndarray


def pose(layers: Layers, channels: ChannelClass) -> Posed | str:
    """The problem of a class of channels, or the reason why it is none."""
    pattern = layers.pattern
    readers = _readers(layers, channels) if layers.sides != "outputs" else []
    makers = _makers(layers, channels) if layers.sides != "inputs" and pattern.shared > 1 else []
    if not readers and not makers:
        makes = f" or makes them in sets of {pattern.shared}" if pattern.shared > 1 else ""
        return f"No weight that the pattern is meant for reads these channels in groups{makes}."
    # Where a class fills no set and group of both, one of them may still be filled.
    together = [(readers, makers)] if readers and makers and nested(pattern) else []
    for some in (*together, (readers, []), ([], makers)):
        posed = _posed(layers, *some) if any(some) else None
        if posed is not None:
            return posed
    width = pattern.group if readers else pattern.shared
    return f"Fewer than two whole groups of {width} channels may change places."


def _posed(layers: Layers, readers: Sequence[_Side], makers: Sequence[_Side]) -> Posed | None:
    pattern = layers.pattern
    first, width = (readers[0], pattern.group) if readers else (makers[0], pattern.shared)
    if makers and pattern.shared > width:
        first, width = makers[0], pattern.shared
    slots = _slots(first.group, first.place, width)
    readers = [each for each in readers if _together(each.group, slots, pattern.group)]
    makers = [each for each in makers if _together(each.group, slots, pattern.shared)]
    widths = [pattern.group] * bool(readers) + [pattern.shared] * bool(makers)
    if not widths or len(slots) < 2 * min(widths):
        return None
    columns = [_columns(layers, each, slots) for each in readers]
    outputs = [_outputs(layers, each, slots) for each in makers]
    return Posed(
        Problem(
            pattern,
            torch.cat(columns, dim=1) if columns else torch.zeros(len(slots), 0),
            tuple(part.contiguous() for part in torch.cat(outputs, dim=1).unbind(-1)) if outputs else (),
        ),
        slots,
    )


@dataclass(frozen=True)
class _Side:
    """One place where a weight has the channels: place and group, i64 [channels]."""

    name: str
    place: np.ndarray
    group: np.ndarray


def _readers(layers: Layers, channels: ChannelClass) -> list[_Side]:
    found = []
    for name in layers.weights:
        consumer = layers.consumers[name]
        for place in channels.places.get(consumer.use, ()):
            width = layers.weights[name].shape[consumer.in_axis]
            group = place // width * -(-width // layers.pattern.group) + place % width // layers.pattern.group
            if _whole(group, layers.pattern.group):
                found.append(_Side(name, place, group))
    return found


def _makers(layers: Layers, channels: ChannelClass) -> list[_Side]:
    found = []
    for name in layers.weights:
        consumer = layers.consumers[name]
        for place in channels.places.get(_output_use(name, consumer), ()):
            high = layers.weights[name].shape[consumer.out_axis] // consumer.blocks
            sets = place // layers.pattern.shared
            aligned = consumer.blocks == 1 or high % layers.pattern.shared == 0
            if aligned and _whole(sets, layers.pattern.shared):
                found.append(_Side(name, place, sets))
    return found


def _output_use(name: str, consumer: Consumer) -> Use:
    return Use(name, "axis", consumer.out_axis)


def _whole(group: np.ndarray, width: int) -> bool:
    return bool((np.unique(group, return_counts=True)[1] == width).any())


def _slots(group: np.ndarray, place: np.ndarray, width: int) -> np.ndarray:
    """The channels of whole groups in the order of their places, i64 [places]."""
    order = np.argsort(place, kind="stable")
    found, times = np.unique(group, return_counts=True)
    return order[np.isin(group[order], found[times == width])]


def _together(group: np.ndarray, slots: np.ndarray, width: int) -> bool:
    """Whether every `width` places in turn are one group of this weight too."""
    if len(slots) % width:
        return False
    sets = group[slots].reshape(-1, width)
    return bool((sets == sets[:, :1]).all())


def _columns(layers: Layers, side: _Side, slots: np.ndarray) -> Tensor:
    """f32 [places, rows]"""
    consumer = layers.consumers[side.name]
    width = layers.weights[side.name].shape[consumer.in_axis]
    matrices = parted(layers.matrices(side.name), 0, consumer.blocks)
    block = matrices[int(side.place[slots[0]]) // width]
    pooled = _pooled(block, layers.pattern.shared).flatten(0, 1)
    return pooled.t()[torch.as_tensor(side.place[slots] % width)].contiguous()


def _outputs(layers: Layers, side: _Side, slots: np.ndarray) -> Tensor:
    """f32 [places, groups, M]"""
    consumer = layers.consumers[side.name]
    matrices = parted(layers.matrices(side.name), 0, consumer.blocks)
    rows = matrices.transpose(1, 2).flatten(0, 1)[torch.as_tensor(side.place[slots])]
    return _grouped(rows, layers.pattern.group).flatten(1, 2)


def _pooled(matrices: Tensor, shared: int) -> Tensor:
    """Sums over the output channels that share a mask: f32 [stack, ceil(out / V), in]."""
    if shared == 1:
        return matrices
    padded = functional.pad(matrices, (0, 0, 0, -matrices.shape[1] % shared))
    return parted(padded, 1, padded.shape[1] // shared).sum(dim=2)


def _grouped(matrices: Tensor, group: int) -> Tensor:
    """f32 [..., in] as f32 [..., ceil(in / M), M], filled up with zeros."""
    padded = functional.pad(matrices, (0, -matrices.shape[-1] % group))
    return parted(padded, padded.ndim - 1, padded.shape[-1] // group)
