"""The problem that the search for an order of channels solves, and how long it may search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.permutation.sorting_network import largest_sum

MOST_SETS = 128
"""A move between this many groups costs little and, at random, soon reaches them all."""

# What pricing one element of an output costs, beside one element of an L1 distance.
_OUTPUT_WORK = 3
_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Bundle:
    """What a round takes out of each group. size : channels. priced : whether what the layers that make the
    channels gain or lose is part of the round; where it is not, the bundles leave it alone.
    """

    size: int
    priced: bool = False


@dataclass(frozen=True)
class Problem:
    """Channels to be put in order.

    pattern : the N:M or N:M@V pattern.
    columns : f32 [channels, rows], all >= 0: the scores of the layers that read the channels; where masks
    are shared,
        each row is the sum over one set of output channels. No rows where nothing counts.
    outputs : M tensors f32 [channels, groups], or none: the scores of the layers that make the channels,
    the m-th
        holding the m-th column of each of their groups.
    """

    pattern: GroupPattern
    columns: Tensor
    outputs: tuple[Tensor, ...] = ()

    @property
    def channels(self) -> int:
        return len(self.columns)

    @property
    def width(self) -> int:
        """Channels of a group: M, or V where only sets of output channels count."""
        return self.pattern.group if self.columns.shape[1] else self.pattern.shared

    @cached_property
    def rows(self) -> Tensor:
        """`outputs` as one matrix, f32 [channels, groups * M]."""
        return torch.stack(self.outputs, dim=-1).flatten(1)

    @property
    def groups_per_set(self) -> int:
        """How many groups lie in a set of V channels, where V is the wider; else 1."""
        return max(1, self.pattern.shared // self.width) if self.outputs else 1

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """What rounds take out in turn.

        Where sets lie in groups, bundles of whole sets leave the outputs alone; where groups lie in sets,
        bundles that stay in their set do.
        """
        sizes = [size for size in _SIZES if size <= max(1, self.width // 2)]
        if not self.outputs:
            return tuple(Bundle(size) for size in sizes)
        if self.groups_per_set > 1:
            return Bundle(1, priced=True), *(Bundle(size) for size in sizes)
        shared = self.pattern.shared
        whole = [size for size in sizes if size > 1 and size % shared == 0]
        if shared > _SIZES[-1] and shared <= self.width // 2:
            whole.append(shared)
        return Bundle(1, priced=True), *(Bundle(size) for size in whole)


@dataclass(frozen=True)
class Effort:
    """How long to search. A round's work counts as rows * (channels / M)^2 * M, and more for shared masks.

    work : rounds are bought from this, at least `least` and at most `most` of them. patience : after so
    many rounds without progress the search goes back to its best order, a few channels of which change places
    at random, and goes on from there. clusterings : how often, at most, widely shared masks are clustered
    anew before that.
    seed : of the random picks; the same seed finds the same order.
    """

    work: float = 6e9
    least: int = 36
    most: int = 1000
    patience: int = 12
    seed: int = 0
    clusterings: int = 40

    def rounds(self, problem: Problem) -> int:
        return int(min(self.most, max(self.least, self.work / round_work(problem))))


def round_work(problem: Problem) -> int:
    """The elements that one round computes."""
    groups = problem.channels // problem.width
    once = max(1, problem.columns.shape[1]) * groups**2 * problem.width
    if problem.outputs:
        sets = min(groups // problem.groups_per_set, MOST_SETS) ** 2
        once += _OUTPUT_WORK * sets * problem.outputs[0].shape[1] * len(problem.outputs)
    return once


def kept(problem: Problem, order: Tensor) -> float:
    """The score that the pattern keeps of a problem whose channels stand in `order`, i64 [channels]."""
    total, pattern = 0.0, problem.pattern
    if problem.columns.shape[1]:
        members = order.view(-1, pattern.group)
        chosen = (problem.columns[members[:, slot]] for slot in range(pattern.group))
        total += float(largest_sum(chosen, pattern.kept).double().sum())
    if problem.outputs:
        sets = order.view(-1, pattern.shared)
        summed = (sum_of(output, sets) for output in problem.outputs)
        total += float(largest_sum(summed, pattern.kept).double().sum())
    return total


def sum_of(output: Tensor, sets: Tensor) -> Tensor:
    """The sums f32 [sets, groups] of the rows of `output` f32 [channels, groups] that i64 [sets, V] names."""
    if sets.shape[1] > _SIZES[-1]:
        return output[sets].sum(dim=1)
    summed = output[sets[:, 0]]
    for slot in range(1, sets.shape[1]):
        summed = summed + output[sets[:, slot]]
    return summed


def check(problem: Problem) -> None:
    """Raise ValueError where the channels do not fill their groups, or groups and sets cross."""
    wide = problem.width * problem.groups_per_set
    if problem.channels % wide:
        raise ValueError(
            f"{problem.channels} channels do not fill groups of {wide}; give whole groups to the search."
        )
    if problem.outputs and wide % problem.pattern.shared:
        raise ValueError(
            f"{problem.pattern} shares masks across the borders of its groups; no order can serve both, so "
            "leave `outputs` out."
        )


def nested(pattern: GroupPattern) -> bool:
    """Whether the sets that share a mask fill groups of input channels, or groups fill sets."""
    narrow, wide = sorted((pattern.group, pattern.shared))
    return wide % narrow == 0


def as_given(problem: Problem) -> Tensor:
    """The order in which the channels come, i64 [channels]."""
    return torch.arange(problem.channels)
