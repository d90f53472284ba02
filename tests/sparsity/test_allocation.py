"""Allocation: the optimum (by integer programming), legal for a pruner, and said so when it cannot be."""

from __future__ import annotations

import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from openwork.sparsity import Pruner
from openwork.sparsity.allocation.allocation import allocate
from openwork.sparsity.allocation.knapsack import Choice, solve
from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.sparsity.allocation.sensitivity_measurement import measure_sensitivity

NUMBERS = st.integers(0, 6)
LISTS = st.lists(
    st.lists(st.builds(Choice, NUMBERS, st.integers(-3, 6)), min_size=1, max_size=4), min_size=1, max_size=5
)


def _random(seed: int, count: int, width: int) -> list[list[Choice]]:
    generator = np.random.default_rng(seed)
    return [
        [Choice(float(cost), float(loss)) for cost, loss in zip(*generator.random((2, width)), strict=True)]
        for _ in range(count)
    ]


def _least(lists: list[list[Choice]], budget: float) -> float:
    """The optimum by SciPy's integer programming."""
    flat = [choice for choices in lists for choice in choices]
    one_each = np.zeros((len(lists), len(flat)))
    start = 0
    for i, choices in enumerate(lists):
        one_each[i, start : start + len(choices)] = 1
        start += len(choices)
    found = milp(
        [choice.loss for choice in flat],
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint([[choice.cost for choice in flat]], -np.inf, budget),
        ],
        options={"mip_rel_gap": 0.0},
    )
    assert found.success
    return float(found.fun)


@settings(deadline=None)
@given(LISTS, st.integers(0, 30))
def test_is_the_best_of_all_picks(lists: list[list[Choice]], budget: int) -> None:
    # Whole numbers: sums are exact, so the comparison is.
    picks = product(*(range(len(choices)) for choices in lists))
    sums = [
        [sum(getattr(c[i], name) for c, i in zip(lists, p, strict=True)) for name in ("cost", "loss")]
        for p in picks
    ]
    legal = [loss for cost, loss in sums if cost <= budget]
    if not legal:
        with pytest.raises(ValueError, match="Even the cheapest choices exceed the budget"):
            solve(lists, budget)
        return
    found = solve(lists, budget)
    assert found.exact
    assert sum(choices[pick].loss for choices, pick in zip(lists, found.picks, strict=True)) == min(legal)
    assert sum(choices[pick].cost for choices, pick in zip(lists, found.picks, strict=True)) <= budget
    assert found.bound == min(legal)


@pytest.mark.parametrize("seed", range(6))
def test_is_the_integer_program_s_optimum(seed: int) -> None:
    lists = _random(seed, 40, 5)
    low, high = (sum(pick(c.cost for c in choices) for choices in lists) for pick in (min, max))
    for share in (0.05, 0.3, 0.6):
        budget = low + share * (high - low)
        found = solve(lists, budget)
        loss = sum(choices[pick].loss for choices, pick in zip(lists, found.picks, strict=True))
        assert found.exact
        # The program's own tolerance on constraints and on whole numbers is 1e-6.
        assert loss == pytest.approx(_least(lists, budget), rel=0, abs=1e-6)


@pytest.mark.parametrize("states", [1, 3, 30])
def test_with_few_states_it_says_how_far_it_may_be(states: int) -> None:
    lists = _random(9, 20, 4)
    budget = sum(min(c.cost for c in choices) for choices in lists) + 3.0
    least = solve(lists, budget)
    assert least.exact
    found = solve(lists, budget, states)
    loss = sum(choices[pick].loss for choices, pick in zip(lists, found.picks, strict=True))
    cost = sum(choices[pick].cost for choices, pick in zip(lists, found.picks, strict=True))
    assert cost <= budget * (1 + 1e-12)
    assert found.bound <= least.bound + 1e-9 <= loss + 2e-9
    assert loss - found.bound < 0.2


SENSITIVITY = Sensitivity(
    2.0,
    {
        "first": {"2:4": 2.5, "4:16": 3.5},
        "second": {"2:4": 2.1, "4:16": 2.2},
        "third": {"2:4": 2.01, "4:16": math.inf},
    },
)
TIMES = {
    "first": {"dense": 4.0, "2:4": 2.0, "4:16": 1.0},
    "second": {"dense": 4.0, "2:4": 2.0, "4:16": 1.0},
    "third": {"dense": 4.0, "2:4": 2.0, "4:16": 1.0},
    "softmax": {"dense": 1.0},
}


def test_picks_by_loss_within_the_time() -> None:
    whole = allocate(SENSITIVITY, TIMES, 13.0)
    assert whole.mapping == {"first": None, "second": None, "third": None}
    found = allocate(SENSITIVITY, TIMES, 8.0)
    assert found.mapping == {"first": None, "second": "4:16", "third": "2:4"}
    assert found.seconds == 8.0
    assert found.increase == pytest.approx(0.21, rel=0, abs=4 * 2**-51)
    assert found.bound == found.increase
    assert found.table().splitlines() == [
        "layer    pattern  seconds   loss",
        "first    dense          4     +0",
        "second   4:16           1   +0.2",
        "third    2:4            2  +0.01",
        "softmax  dense          1     +0",
        "8 s of 8 s allowed; the loss rises by 0.21, the least possible",
    ]


def test_a_layer_that_gains_by_pruning_is_pruned() -> None:
    found = allocate(Sensitivity(2.0, {"a": {"2:4": 1.5}}), {"a": {"dense": 1.0, "2:4": 0.5}}, 10.0)
    assert found.mapping == {"a": "2:4"}
    assert found.increase == -0.5


def test_slower_patterns_are_not_chosen_and_texts_may_differ() -> None:
    sensitivity = Sensitivity(1.0, {"a": {"4x1:0.5": 1.5}})
    assert allocate(sensitivity, {"a": {"dense": 1.0, "4x1:.50": 2.0}}, 2.0).mapping == {"a": None}
    assert allocate(sensitivity, {"a": {"dense": 3.0, "4x1:.50": 2.0}}, 2.0).mapping == {"a": "4x1:0.5"}


def test_a_pruner_takes_what_was_allocated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8)).eval()
    data = torch.randn(64, 32)
    with torch.no_grad():
        target = model(data)
    sensitivity = measure_sensitivity(
        model, lambda module: float((module(data) - target).square().mean()), ["2:4", "4:16"]
    )
    times = {name: {"dense": 1.0, "2:4": 0.6, "4:16": 0.4} for name in sensitivity.losses}
    found = allocate(sensitivity, times, 1.8)
    pruner = Pruner(model, found.mapping)
    pruner.prune()
    pruner.verify()
    assert {name: str(p.pattern) for name, p in pruner.prunables.items()} == {
        name: text for name, text in found.mapping.items() if text
    }
    assert found.seconds <= 1.8


@pytest.mark.parametrize(
    ("times", "target", "said"),
    [
        (
            TIMES,
            4.9,
            "With the patterns that were measured the layers take at least 5 s, more than the target of "
            "4.9 s. Allow more time, or measure and time faster patterns.",
        ),
        ({"first": TIMES["first"]}, 9.0, "The times lack 2 of the layers that were measured: second, third."),
        (
            {**TIMES, "x": {"2:4": 1.0}},
            9.0,
            'The times of "x" lack "dense", the time that it takes unpruned.',
        ),
        (
            {**TIMES, "x": {"dense": -1.0}},
            9.0,
            'The time of "x" with "dense" is a number of seconds of at least',
        ),
        ({**TIMES, "x": {"dense": math.nan}}, 9.0, "of at least 0, but it is nan."),
        ({**TIMES, "x": {"dense": 1.0, "half": 1.0}}, 9.0, "'half' is not a sparsity pattern"),
        ({}, 9.0, "but there are 0 layers and the target is 9.0 s."),
        (TIMES, math.inf, "but there are 4 layers and the target is inf s."),
    ],
)
def test_refuses_in_a_sentence(times: dict[str, dict[str, float]], target: float, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        allocate(SENSITIVITY, times, target)
