"""Clustering of output channels: which V of them share a mask.

A layer's row of scores says what each output channel needs of each input. V channels that share a mask keep,
of every M inputs, the N with the largest sums. Which channels are sets is decided as balanced k-means decides
it: with the masks fixed, a channel keeps `scores . mask` in a set, and the best way to fill all sets with V
channels each is found by exchanges; with the sets fixed, each takes its best mask; and so in turn, which
never loses.

*Exchange.* Each set gives at most one channel away and takes at most one: the most that set g's channels gain
in set h is a matrix, and one linear sum assignment the best exchange of all. Where no exchange gains, the
assignment is the best one there is, as a flow without a cycle of negative cost is.

*Left out.* A set's own channels made its mask, so each of them is served best where it is and the turns soon
stand still. So a part of every set's channels, drawn at random, is left out of the masks before all are
assigned anew; what comes of it is taken where it keeps more. A layer of
MiniLM at 64:128@64 (0.615 of w^2 as it comes, 0.665 after one descent) came to 0.671 in six seconds of that;
to 0.667 in six seconds of new starts, and to 0.669 where those served worst are left out, as gyro-permutation
does (arXiv 2407.20496), which then finds no more.
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openwork.patterns.pattern import GroupPattern
from openwork.sparsity.permutation.problem import Effort, Problem, as_given

LEAST_SHARED = 16
"""From this V on sets are clustered. Below, they are many and small, and the rounds of the search, which
price every exchange exactly, find more."""

# The descent stands where a turn gains less than this part; exchanges are looked for down to the second.
_STILL, _EXCHANGE = 1e-5, 1e-6
_MOST_TURNS = 60
# Parts of each set that are left out of its mask, in turn.
_LEFT_OUT = (0.5, 0.25)
# A descent takes about as many nanoseconds for each score and set.
_DESCENT_WORK = 4


class Clusters:
    """The scores of the channels of a problem, and what sets of them keep.

    rows : f32 [channels, columns], columns a multiple of M.
    """

    def __init__(self, rows: Tensor, pattern: GroupPattern) -> None:
        self.rows, self.pattern = rows, pattern

    def sums(self, members: Tensor) -> Tensor:
        """What the masks of sets i64 [sets, n] are made from: f32 [sets, columns]."""
        some = self.rows[members.flatten()]
        return some.view(*members.shape, -1).sum(dim=1)

    def masks(self, sums: Tensor) -> Tensor:
        """The best masks of `sums` f32 [sets, columns]: 1 where kept, 0 elsewhere."""
        groups = sums.view(len(sums), -1, self.pattern.group)
        places = groups.topk(self.pattern.kept, dim=2).indices
        return torch.zeros_like(groups).scatter_(2, places, 1.0).view(sums.shape)

    def each(self, sums: Tensor) -> Tensor:
        """What each set keeps, of its `sums`: f64 [sets]."""
        groups = sums.view(len(sums), -1, self.pattern.group)
        return groups.topk(self.pattern.kept, dim=2).values.double().sum(dim=(1, 2))

    def kept(self, members: Tensor) -> float:
        """What the sets i64 [sets, V] keep together."""
        return float(self.each(self.sums(members)).sum())

    def descend(self, members: Tensor) -> tuple[Tensor, float]:
        """Masks and sets in turn until neither gains; the sets, and what they keep."""
        kept = self.kept(members)
        for _ in range(_MOST_TURNS):
            found = exchanged(self.rows @ self.masks(self.sums(members)).t(), members)
            now = self.kept(found)
            if now > kept:
                members = found
            if now <= kept * (1 + _STILL):
                return members, max(now, kept)
            kept = now
        return members, kept


def clustered(problem: Problem, effort: Effort) -> Tensor:
    """An order of the channels, i64 [channels], whose sets of V keep at least as much of `problem.outputs`.

    What the layers that read the channels keep is not looked at.
    """
    clusters = Clusters(problem.rows, problem.pattern)
    generator = torch.Generator().manual_seed(effort.seed)
    members = as_given(problem).view(-1, problem.pattern.shared)
    if len(members) < 2:
        return members.flatten()
    best, kept = clusters.descend(members)
    for turn in range(_tries(problem, effort)):
        start = _left_out(clusters, best, turn, generator) if turn else _seeded(clusters, best, generator)
        found, now = clusters.descend(start)
        if now > kept:
            best, kept = found, now
    return best.flatten()


def exchanged(gains: Tensor, members: Tensor) -> Tensor:
    """The sets i64 [sets, V] after exchanges of channels, until the sum of each channel's gain in its set is
    as large as it can be. gains : f32 [channels, sets].
    """
    sets, members = torch.arange(len(members)), members.clone()
    # Every exchange moves a channel to where it gains more; twice as many as there are channels is far
    # above what any layer took.
    for _ in range(2 * len(gains)):
        inside = gains[members]
        own = inside[sets, :, sets]
        best, slots = (inside - own[:, :, None]).max(dim=1)
        best[sets, sets] = 0.0
        target = torch.as_tensor(linear_sum_assignment(best.numpy(), maximize=True)[1])
        if float(best[sets, target].sum()) <= _EXCHANGE * float(own.sum()):
            break
        moving = (target != sets).nonzero().flatten()
        leaving = slots[moving, target[moving]]
        channels = members[moving, leaving]
        vacated = torch.empty_like(sets).scatter_(0, moving, leaving)
        members[target[moving], vacated[target[moving]]] = channels
    return members


def _tries(problem: Problem, effort: Effort) -> int:
    """How many new starts the effort buys."""
    descent = _DESCENT_WORK * problem.rows.numel() * (problem.channels // problem.pattern.shared)
    return int(min(effort.clusterings, max(2, effort.work / max(1, descent))))


def _seeded(clusters: Clusters, members: Tensor, generator: torch.Generator) -> Tensor:
    """Sets around single channels, drawn at random, whose own masks the first assignment uses."""
    sets = len(members)
    order = torch.randperm(members.numel(), generator=generator)
    masks = clusters.masks(clusters.rows[order[:sets]])
    return exchanged(clusters.rows @ masks.t(), order.view(members.shape))


def _left_out(clusters: Clusters, members: Tensor, turn: int, generator: torch.Generator) -> Tensor:
    """All channels assigned anew by masks that a part of them had no say in."""
    order = torch.rand(members.shape, generator=generator).argsort(dim=1)
    count = max(1, int(members.shape[1] * _LEFT_OUT[turn % len(_LEFT_OUT)]))
    staying = members.gather(1, order)[:, count:]
    return exchanged(clusters.rows @ clusters.masks(clusters.sums(staying)).t(), members)
