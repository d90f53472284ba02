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
too: the sum over a set of V channels is what their one mask sees. A bundle of whole sets leaves that alone,
and so do bundles that stay within their set where a set is wider than a group; a bundle of one channel adds
to the matrix what each set would keep with each candidate. Where masks are shared widely, the sets are
clustered first (`clustering.py`), for the outputs alone, and the rounds go on from there; if what they come
to keeps less of both than the order given, that one stays.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openwork.sparsity.permutation.clustering import LEAST_SHARED, Clusters, clustered
from openwork.sparsity.permutation.problem import (
    MOST_SETS,
    Bundle,
    Effort,
    Problem,
    as_given,
    check,
    kept,
    round_work,
    sum_of,
)
from openwork.sparsity.permutation.sorting_network import descending, largest_sum
from openwork.sparsity.permutation.threads import threads_for

# What a chunk of candidate sets may hold, in elements, so that it stays in a core's second-level cache.
_CHUNK = 1 << 18
# A round counts as progress where it gains this part of the whole; float32 sums stand for less than that.
_PROGRESS = 2e-6


def search(problem: Problem, effort: Effort | None = None) -> Tensor:
    """An order of the channels, i64 [channels], that keeps at least as much as the order given.

    Channel `order[p]` moves to the place p. Raises ValueError where the channels do not fill their groups.
    """
    check(problem)
    with threads_for(round_work(problem)):
        return _searched(problem, effort or Effort())


def _searched(problem: Problem, effort: Effort) -> Tensor:
    widely = bool(problem.outputs) and problem.pattern.shared >= LEAST_SHARED
    given, rounds = as_given(problem), effort.rounds(problem)
    if widely:
        # Clustering leaves the rounds little: on MiniLM's layers they found nothing after the first hundred.
        start, rounds = clustered(problem, effort), max(effort.least, rounds // 4)
    order = _refined(problem, start if widely else given, rounds, effort)
    return order if kept(problem, order) > kept(problem, given) else given


def _refined(problem: Problem, start: Tensor, rounds: int, effort: Effort) -> Tensor:
    """The best order that so many rounds come to from `start`."""
    state = _State(problem, start, torch.Generator().manual_seed(effort.seed))
    if state.groups < 2:
        return start
    best, best_gain, idle = state.members.clone(), 0.0, 0
    for turn in range(rounds):
        idle = 0 if state.round(problem.bundles[turn % len(problem.bundles)]) > _PROGRESS else idle + 1
        if state.gain > best_gain:
            best, best_gain = state.members.clone(), state.gain
        if idle >= effort.patience:
            state.resume(best, best_gain)
            state.disturb()
            idle = 0
    return best.flatten()


class _State:
    """Which channels are in which group, i64 [groups, width],
    and the gain so far as a part of the total score.
    """

    def __init__(self, problem: Problem, start: Tensor, generator: torch.Generator) -> None:
        self.problem, self.generator = problem, generator
        self.width, self.inside = problem.width, problem.groups_per_set
        self.members = start.view(-1, self.width).clone()
        self.groups = len(self.members)
        scores = float(problem.columns.double().sum()) + sum(float(o.double().sum()) for o in problem.outputs)
        self.total = scores or 1.0
        self.gain = 0.0

    def round(self, bundle: Bundle) -> float:
        """Reassign one bundle of channels of each group; the gain as a part of the total score."""
        rows = self._taking_part(bundle)
        slots = self._slots(len(rows), bundle.size)
        members = self.members[rows].gather(1, slots)
        matrix = (
            self._distances(members, bundle.size)
            if self.problem.columns.shape[1]
            else torch.zeros(len(rows), len(rows))
        )
        if bundle.priced:
            matrix = matrix + self._set_scores(self._sets(rows, slots[:, 0]), members[:, 0])
        elif self.inside > 1:
            sets = rows // self.inside
            matrix = matrix.masked_fill(sets[:, None] != sets, -torch.inf)
        target = torch.as_tensor(linear_sum_assignment(matrix.numpy(), maximize=True)[1])
        return self._apply(rows, slots[:, : bundle.size], matrix, target)

    def _taking_part(self, bundle: Bundle) -> Tensor:
        """The groups of a round, in a random order; of each set one at most, where its price is asked."""
        if bundle.priced and self.inside > 1:
            sets = torch.randperm(self.groups // self.inside, generator=self.generator)[:MOST_SETS]
            return sets * self.inside + torch.randint(self.inside, sets.shape, generator=self.generator)
        rows = torch.randperm(self.groups, generator=self.generator)
        return rows[:MOST_SETS] if bundle.priced else rows

    def _sets(self, rows: Tensor, slots: Tensor) -> Tensor:
        """The channels that share a mask with those at `slots` of the groups `rows`: i64 [rows, V]."""
        shared = self.problem.pattern.shared
        if self.inside > 1:
            return self.members.view(-1, shared)[rows // self.inside]
        places = (slots // shared * shared)[:, None] + torch.arange(shared)
        return self.members[rows].gather(1, places)

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
        whole = self.problem.outputs and size > 1 and self.inside == 1
        unit = self.problem.pattern.shared if whole else 1
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

    def _set_scores(self, sets: Tensor, own: Tensor) -> Tensor:
        """What each of `sets`, i64 [groups, V], keeps if it gives up its own channel of `own`, i64 [groups],
        for each of them: f32 [groups, groups].
        """
        if self.problem.pattern.shared >= LEAST_SHARED:
            return self._least_scores(sets, own)
        outputs = self.problem.outputs
        candidates = [output[own] for output in outputs]
        rest = [
            sum_of(output, sets) - candidate for output, candidate in zip(outputs, candidates, strict=True)
        ]
        matrix = torch.empty(len(sets), len(sets))
        step = max(1, _CHUNK // max(1, candidates[0].numel()))
        for start in range(0, len(sets), step):
            some = slice(start, start + step)
            joined = (r[some, None] + c[None] for r, c in zip(rest, candidates, strict=True))
            matrix[some] = largest_sum(joined, self.problem.pattern.kept).sum(dim=2)
        return matrix

    def _least_scores(self, sets: Tensor, own: Tensor) -> Tensor:
        """The same, where all but what the sets keep now is the least that they keep, by the mask of the
        channels that stay: one channel of many moves few places of a mask, and one product gives it all. A
        round that gains by this gains.
        """
        clusters = Clusters(self.problem.rows, self.problem.pattern)
        sums, candidates = clusters.sums(sets), self.problem.rows[own]
        masks = clusters.masks(sums - candidates)
        least = ((sums - candidates) * masks).sum(dim=1)[:, None] + masks @ candidates.t()
        return least.diagonal_scatter(clusters.each(sums).float())

    def _apply(self, rows: Tensor, slots: Tensor, matrix: Tensor, target: Tensor) -> float:
        now, then = matrix.diagonal().double(), matrix[torch.arange(len(rows)), target].double()
        gain = float((then - now).sum()) / self.total
        if gain <= 0.0:
            return 0.0
        bundles = self.members[rows].gather(1, slots)
        self.members[rows] = self.members[rows].scatter(1, slots, bundles[target])
        self.gain += gain
        return gain
