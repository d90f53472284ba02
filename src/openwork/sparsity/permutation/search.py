"""The search for an order of channels: bundles are taken out of all groups at once
and given back by assignment.

A group is the M channels that an N:M pattern looks at together. A round picks k channels of each group at
random, its *bundle*, and gives the bundles back to the groups in the best of all (C / M)! ways. With the N
largest of what remains in group g, a_1 >= ... >= a_N (0 where fewer remain), and a bundle b_1 >= ... >=
b_k, a row keeps

    sum_t a_t + sum_(t <= min(k, N)) max(0, b_t - a_(N + 1 - t))

(Batcher's half-cleaner picks the N largest of two sorted lists), and max(0, b - a) = (|b - a| + b - a) / 2.
The terms without |.| are the same for every assignment, so the best assignment is the one of greatest L1
distance between bundles and what they join: one `torch.cdist`, then a linear sum assignment, which is
exact. No round can lose, and k = 1 and k = 2 together reach every way to divide two groups of 2:4 anew, the
moves of ASP's stripe search.

Where masks are shared by V adjacent output channels, the layers that *produce* the channels gain or lose
too: the sum over a set of V channels is what their one mask sees. A bundle of whole sets leaves that alone;
a bundle of one channel adds to the matrix what each set would keep with each candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.permutation.sorting_network import descending, largest_sum
from openwork.sparsity.permutation.threads import threads_for

# What a chunk of candidate sets may hold, in elements, so that it stays in a core's second-level cache.
_CHUNK = 1 << 18
# A move between this many groups costs little and, at random, soon reaches them all.
_MOST_SETS = 128
# What pricing one element of an output costs, beside one element of an L1 distance.
_OUTPUT_WORK = 3
# A round counts as progress where it gains this part of the whole; float32 sums stand for less than that.
_PROGRESS = 2e-6


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

    @property
    def bundles(self) -> tuple[int, ...]:
        """The bundle sizes that rounds take in turn."""
        sizes = [size for size in (1, 2, 4, 8) if size <= max(1, self.width // 2)]
        if self.outputs:
            sizes = [size for size in sizes if size == 1 or size % self.pattern.shared == 0]
        return tuple(sizes)


@dataclass(frozen=True)
class Effort:
    """How long to search. A round's work counts as rows * (channels / M)^2 * M, and more for shared masks.

    work : rounds are bought from this, at least `least` and at most `most` of them. patience : after so
    many rounds without progress the search goes back to its best order, a few channels of which change places
    at random, and goes on from there.
    seed : of the random picks; the same seed finds the same order.
    """

    work: float = 6e9
    least: int = 36
    most: int = 1000
    patience: int = 12
    seed: int = 0

    def rounds(self, problem: Problem) -> int:
        return int(min(self.most, max(self.least, self.work / round_work(problem))))


def round_work(problem: Problem) -> int:
    """The elements that one round computes."""
    groups = problem.channels // problem.width
    once = max(1, problem.columns.shape[1]) * groups**2 * problem.width
    if problem.outputs:
        sets = min(groups, _MOST_SETS) ** 2
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
    summed = output[sets[:, 0]]
    for slot in range(1, sets.shape[1]):
        summed = summed + output[sets[:, slot]]
    return summed


def search(problem: Problem, effort: Effort | None = None) -> Tensor:
    """An order of the channels, i64 [channels], that keeps at least as much as the order given.

    Channel `order[p]` moves to the place p. Raises ValueError where the channels do not fill their groups.
    """
    _check(problem)
    with threads_for(round_work(problem)):
        return _searched(problem, effort or Effort())


def _searched(problem: Problem, effort: Effort) -> Tensor:
    state = _State(problem, torch.Generator().manual_seed(effort.seed))
    if state.groups < 2:
        return torch.arange(problem.channels)
    best, best_gain, idle = state.members.clone(), 0.0, 0
    for turn in range(effort.rounds(problem)):
        idle = 0 if state.round(problem.bundles[turn % len(problem.bundles)]) > _PROGRESS else idle + 1
        if state.gain > best_gain:
            best, best_gain = state.members.clone(), state.gain
        if idle >= effort.patience:
            state.resume(best, best_gain)
            state.disturb()
            idle = 0
    order = best.flatten()
    start = torch.arange(problem.channels)
    return order if kept(problem, order) > kept(problem, start) else start


def _check(problem: Problem) -> None:
    if problem.channels % problem.width:
        raise ValueError(
            f"{problem.channels} channels do not fill groups of {problem.width}; give whole groups to the "
            "search."
        )
    if problem.outputs and problem.width % problem.pattern.shared:
        raise ValueError(
            f"{problem.pattern} shares masks across the borders of its groups; no order can serve both, so "
            "leave `outputs` out."
        )


class _State:
    """Which channels are in which group, i64 [groups, width],
    and the gain so far as a part of the total score.
    """

    def __init__(self, problem: Problem, generator: torch.Generator) -> None:
        self.problem, self.generator = problem, generator
        self.width = problem.width
        self.members = torch.arange(problem.channels).view(-1, self.width)
        self.groups = len(self.members)
        scores = float(problem.columns.double().sum()) + sum(float(o.double().sum()) for o in problem.outputs)
        self.total = scores or 1.0
        self.gain = 0.0

    def round(self, size: int) -> float:
        """Reassign one bundle of `size` channels of each group; the gain as a part of the total score."""
        priced = bool(self.problem.outputs) and size == 1
        rows = torch.randperm(self.groups, generator=self.generator)[: _MOST_SETS if priced else self.groups]
        slots = self._slots(len(rows), size)
        members = self.members[rows].gather(1, slots)
        matrix = (
            self._distances(members, size)
            if self.problem.columns.shape[1]
            else torch.zeros(len(rows), len(rows))
        )
        if priced:
            matrix = matrix + self._set_scores(self.members[rows], slots[:, 0])
        target = torch.as_tensor(linear_sum_assignment(matrix.numpy(), maximize=True)[1])
        return self._apply(rows, slots[:, :size], matrix, target)

    def resume(self, members: Tensor, gain: float) -> None:
        """Go back to an earlier place of the search."""
        self.members, self.gain = members.clone(), gain

    def disturb(self) -> None:
        """Let one random channel of a few groups change places, whatever it costs."""
        count = max(2, self.groups // 16)
        rows = torch.randperm(self.groups, generator=self.generator)[:count]
        slots = torch.randint(self.width, (count,), generator=self.generator)
        before = kept(self.problem, self.members.flatten())
        self.members[rows, slots] = self.members[rows, slots].roll(1)
        self.gain += (kept(self.problem, self.members.flatten()) - before) / self.total

    def _slots(self, count: int, size: int) -> Tensor:
        """A random order of the places in each group, i64 [count, width]; the first `size` are the bundle."""
        unit = self.problem.pattern.shared if self.problem.outputs and size > 1 else 1
        sets = torch.rand(count, self.width // unit, generator=self.generator).argsort(dim=1)
        return (sets[:, :, None] * unit + torch.arange(unit)).flatten(1)

    def _distances(self, members: Tensor, size: int) -> Tensor:
        """What group g keeps with bundle h, up to terms that no assignment changes: f32 [groups, groups]."""
        columns, keep = self.problem.columns, self.problem.pattern.kept
        bundle = descending(columns[members[:, slot]] for slot in range(size))
        rest = descending(columns[members[:, slot]] for slot in range(size, self.width))[:keep]
        rest += [torch.zeros_like(bundle[0])] * (keep - len(rest))
        matrix = torch.cdist(rest[keep - 1], bundle[0], p=1.0)
        for rank in range(1, min(size, keep)):
            matrix += torch.cdist(rest[keep - 1 - rank], bundle[rank], p=1.0)
        return matrix.mul_(0.5)

    def _set_scores(self, members: Tensor, slots: Tensor) -> Tensor:
        """What the set that loses the channel at `slots` keeps with each of the channels:
        f32 [groups, groups].
        """
        shared, outputs = self.problem.pattern.shared, self.problem.outputs
        own = members.gather(1, slots[:, None])
        places = (slots // shared * shared)[:, None] + torch.arange(shared)
        sets = members.gather(1, places)
        candidates = [output[own[:, 0]] for output in outputs]
        rest = [
            sum_of(output, sets) - candidate for output, candidate in zip(outputs, candidates, strict=True)
        ]
        matrix = torch.empty(len(members), len(members))
        step = max(1, _CHUNK // max(1, candidates[0].numel()))
        for start in range(0, len(members), step):
            some = slice(start, start + step)
            joined = (r[some, None] + c[None] for r, c in zip(rest, candidates, strict=True))
            matrix[some] = largest_sum(joined, self.problem.pattern.kept).sum(dim=2)
        return matrix

    def _apply(self, rows: Tensor, slots: Tensor, matrix: Tensor, target: Tensor) -> float:
        now, then = matrix.diagonal().double(), matrix[torch.arange(len(rows)), target].double()
        gain = float((then - now).sum()) / self.total
        if gain <= 0.0:
            return 0.0
        bundles = self.members[rows].gather(1, slots)
        self.members[rows] = self.members[rows].scatter(1, slots, bundles[target])
        self.gain += gain
        return gain
