"""The demo's plan: how much of it fits a machine."""

import dataclasses
from pathlib import Path

import pytest
from examples.minilm_search.plan import (
    CHOICES,
    INT8_PEERS,
    LEAST_MINUTES,
    LEAST_PEERS,
    MOST_MINUTES,
    Costs,
    Plan,
)
from examples.minilm_search.settings import FULL_MINUTES, PATTERNS, Settings

COSTS = Costs(batch=0.1, fixed=120.0, peer=30.0, pair=0.01, own=8)
SETTINGS = Settings(Path("work"), 2, minutes=20.0)


def test_costs_grow_with_the_machines_time_for_a_batch() -> None:
    once = COSTS.seconds(0.1, 1_000, INT8_PEERS)
    assert once == pytest.approx(120 + 4 * 30 + 0.01 * 1_000 * (1 + 8 + 4))
    assert COSTS.seconds(0.2, 1_000, INT8_PEERS) == pytest.approx(2 * once)


def test_a_fast_machine_does_everything_and_distils_no_longer_than_it_gains() -> None:
    plan = Plan.fitted(SETTINGS, 0.05, COSTS)
    assert (plan.pairs, plan.peers) == CHOICES[0]
    assert sum(plan.minutes.values()) == pytest.approx(MOST_MINUTES, abs=0.15)


def test_what_is_left_goes_to_the_distillation() -> None:
    plan = Plan.fitted(SETTINGS, 0.16, COSTS)
    left = 20.0 - COSTS.seconds(0.16, plan.pairs, plan.peers) / 60
    assert LEAST_MINUTES < left < MOST_MINUTES
    assert sum(plan.minutes.values()) == pytest.approx(left, abs=0.15)
    assert tuple(plan.minutes) == PATTERNS


def test_a_slower_machine_ranks_fewer_pairs_then_drops_peers() -> None:
    found = [Plan.fitted(SETTINGS, batch, COSTS) for batch in (0.1, 0.2, 0.26, 0.3, 5.0)]
    sizes = [(plan.pairs, len(plan.peers)) for plan in found]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2
    assert (found[-1].pairs, found[-1].peers) == (500, LEAST_PEERS)
    assert sum(found[-1].minutes.values()) == pytest.approx(LEAST_MINUTES, abs=0.15)


def test_minutes_that_are_asked_for_are_given() -> None:
    none = Plan.fitted(dataclasses.replace(SETTINGS, distill_minutes=0.0), 0.1, COSTS)
    assert none.minutes == dict.fromkeys(PATTERNS, 0.0)
    assert Plan.fitted(dataclasses.replace(SETTINGS, full=True), 0.1, COSTS).minutes == FULL_MINUTES


def test_a_plan_survives_its_file_and_says_what_it_does() -> None:
    plan = Plan(1_000, LEAST_PEERS, {"2:4": 1.5, "32:64": 0.5, "16:64": 2.0})
    assert Plan.of_record(plan.record()) == plan
    assert plan.sentence() == (
        "1,000 pairs are ranked, 2 INT8 peers; minutes to distil: 2:4 1.5, 32:64 0.5, 16:64 2.0"
    )
