"""The multiple-choice knapsack: one choice from each list, the least loss within a budget.

States (cost, loss) that no other beats in both are carried from list to list. What cannot lead to the best
is dropped: a state whose loss, with the least that the remaining lists can add within what is left of the
budget, exceeds a solution that is known already. That least comes from the linear relaxation, which is solved
by the lists' lower convex hulls, steepest segments first. Source: Kellerer, Pferschy & Pisinger 2004,
"Knapsack Problems", chapter 11.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

STATES = 200_000
"""The most states that are carried from list to list; beyond them those of the largest bound are given up."""

# Sums of the same numbers in another order differ by less than this part of them.
_SLACK = 1e-12


@dataclass(frozen=True)
class Choice:
    """One choice. cost: at least 0. loss: any finite number."""

    cost: float
    loss: float


@dataclass(frozen=True)
class Solution:
    """picks: the index of the choice in each list. bound: no picks within the budget have a smaller loss.
    exact: whether these picks are proven to have the smallest.
    """

    picks: tuple[int, ...]
    bound: float
    exact: bool


@dataclass(frozen=True)
class _Level:
    """The states after one list: where each came from and which choice it took."""

    parent: Indices
    choice: Indices


def solve(lists: list[list[Choice]], budget: float, states: int = STATES) -> Solution:
    """The picks of the least loss whose costs sum up to at most `budget`.

    Raises ValueError if even the cheapest picks cost more.
    """
    budget += abs(budget) * _SLACK
    if math.fsum(min(choice.cost for choice in choices) for choices in lists) > budget:
        raise ValueError("Even the cheapest choices exceed the budget.")
    kept = [_undominated(choices) for choices in lists]
    # Lists that decide most come first, so that bounds bite early.
    order = sorted(range(len(lists)), key=lambda i: -(lists[i][kept[i][0]].loss - lists[i][kept[i][-1]].loss))
    sorted_ = [[lists[i][j] for j in kept[i]] for i in order]
    picks, bound, exact = _search(sorted_, budget, states)
    found = dict(zip(order, picks, strict=True))
    return Solution(tuple(kept[i][found[i]] for i in range(len(lists))), bound, exact)


def _undominated(choices: list[Choice]) -> list[int]:
    """The indices of choices that none beats in both cost and loss, cheapest first: losses fall strictly."""
    best: list[int] = []
    for index in sorted(range(len(choices)), key=lambda i: (choices[i].cost, choices[i].loss, i)):
        if not best or choices[index].loss < choices[best[-1]].loss:
            best.append(index)
    return best


class _Relaxed:
    """The least loss that some lists can have within a budget, were choices divisible: a convex function."""

    def __init__(self, lists: list[list[Choice]]) -> None:
        hulls = [(i, *pair) for i, choices in enumerate(lists) for pair in _hull(choices)]
        self.segments = sorted(hulls, key=lambda segment: _slope(*segment[1:]))
        steps = np.array([[b.cost - a.cost, b.loss - a.loss] for _, a, b in self.segments]).reshape(-1, 2)
        start = [[math.fsum(c[0].cost for c in lists), math.fsum(c[0].loss for c in lists)]]
        self.points: Floats = np.cumsum(np.concatenate([start, steps]), axis=0)

    def __call__(self, budget: Floats) -> Floats:
        """The least loss within each budget; infinite below the cheapest choices."""
        costs, losses = self.points[:, 0], self.points[:, 1]
        found: Floats = np.interp(budget, costs, losses)
        return np.where(budget < costs[0] * (1 - _SLACK), np.inf, found)


def _hull(choices: list[Choice]) -> list[tuple[Choice, Choice]]:
    """The segments of the lower convex hull, from the cheapest choice to that of the least loss."""
    hull: list[Choice] = []
    for choice in choices:
        while len(hull) > 1 and _above(hull[-2], hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return list(pairwise(hull))


def _slope(before: Choice, after: Choice) -> float:
    return (after.loss - before.loss) / (after.cost - before.cost)


def _above(first: Choice, middle: Choice, last: Choice) -> bool:
    """Whether `middle` lies on or above the line from `first` to `last`."""
    rise = (middle.loss - first.loss) * (last.cost - first.cost)
    return rise >= (last.loss - first.loss) * (middle.cost - first.cost)


def _greedy(lists: list[list[Choice]], relaxed: _Relaxed, budget: float) -> list[int]:
    """The picks of a good solution: hull segments by steepness, wherever they still fit."""
    current = [choices[0] for choices in lists]
    left = budget - math.fsum(choice.cost for choice in current)
    for i, _, after in relaxed.segments:
        width = after.cost - current[i].cost
        if width <= left:
            left -= width
            current[i] = after
    return [choices.index(choice) for choices, choice in zip(lists, current, strict=True)]


def _search(lists: list[list[Choice]], budget: float, states: int) -> tuple[list[int], float, bool]:
    suffixes = [_Relaxed(lists[i:]) for i in range(len(lists) + 1)]
    known = _greedy(lists, suffixes[0], budget)
    value = math.fsum(choices[pick].loss for choices, pick in zip(lists, known, strict=True))
    slack = _SLACK * math.fsum(max(abs(choice.loss) for choice in choices) for choices in lists)
    costs, losses = np.zeros(1), np.zeros(1)
    levels: list[_Level] = []
    given_up = math.inf
    for choices, rest in zip(lists, suffixes[1:], strict=True):
        costs, losses, level = _extended(costs, losses, choices)
        bounds = losses + rest(budget - costs)
        keep = np.flatnonzero(bounds <= value + slack)
        keep = keep[_front(costs[keep], losses[keep])]
        if len(keep) > states:
            by_bound = keep[np.argsort(bounds[keep], kind="stable")]
            given_up = min(given_up, float(bounds[by_bound[states]]))
            keep = np.sort(by_bound[:states])
        costs, losses = costs[keep], losses[keep]
        levels.append(_Level(level.parent[keep], level.choice[keep]))
    # Once states were given up, those of the solution that was known may be among them.
    if not len(losses) or losses.min() > value + slack:
        return known, min(value, given_up), given_up >= value
    best = int(np.argmin(losses))
    least = float(losses[best])
    return _picks(levels, best), min(least, given_up), given_up >= least


def _extended(costs: Floats, losses: Floats, choices: list[Choice]) -> tuple[Floats, Floats, _Level]:
    """Every state with every choice."""
    more: NDArray[Any] = np.array([[choice.cost, choice.loss] for choice in choices])
    parent, choice = np.divmod(np.arange(len(costs) * len(choices)), len(choices))
    return costs[parent] + more[choice, 0], losses[parent] + more[choice, 1], _Level(parent, choice)


def _front(costs: Floats, losses: Floats) -> Indices:
    """The states that none beats in both, cheapest first."""
    order = np.lexsort((losses, costs))
    ordered = losses[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(ordered)[:-1]])
    found: Indices = order[ordered < before]
    return found


def _picks(levels: list[_Level], state: int) -> list[int]:
    picks = []
    for level in reversed(levels):
        picks.append(int(level.choice[state]))
        state = int(level.parent[state])
    return picks[::-1]
