"""Schedules: pure, monotone, with the right ends, and the same after a trip through their text."""

from __future__ import annotations

import math
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.sparsity.pruner.schedule import KINDS, Gradual, OneShot, Progressive, Schedule, SparseRefined

STEPS = st.integers(0, 3000)
ONE_SHOTS = st.builds(OneShot, st.integers(0, 1000))
PROGRESSIVES = st.builds(Progressive, st.integers(1, 12), st.integers(1, 300), st.integers(0, 500))
FRACTIONS = st.floats(0.0, 0.999)


@st.composite
def graduals(draw: st.DrawFn) -> Gradual:
    kind = draw(st.sampled_from([*KINDS, "exponential"]))
    start = draw(st.integers(0, 1000))
    density = draw(st.floats(1e-6, 1 - 1e-6)) if kind == "exponential" else 0.1
    end = start + draw(st.integers(1, 1500))
    return Gradual(kind, start, end, draw(st.integers(1, 200)), draw(FRACTIONS), density)


REFINED = st.builds(SparseRefined, st.integers(0, 2000), st.floats(0, 1), st.integers(1, 50))
SCHEDULES = st.one_of(ONE_SHOTS, PROGRESSIVES, graduals(), REFINED)


@settings(deadline=None)
@given(SCHEDULES)
def test_text_gives_the_schedule_back(schedule: Schedule) -> None:
    assert Schedule.parse(str(schedule)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert hash(Schedule.parse(str(schedule))) == hash(schedule)


@settings(deadline=None)
@given(SCHEDULES, STEPS, STEPS)
def test_never_falls_and_stays_within_its_ends(schedule: Schedule, one: int, other: int) -> None:
    earlier, later = schedule(min(one, other)), schedule(max(one, other))
    assert 0.0 <= earlier <= later <= 1.0
    assert schedule(one) == schedule(one)


@settings(deadline=None)
@given(SCHEDULES, st.integers(0, 5000))
def test_is_whole_at_its_final_step_and_changes_no_more(schedule: Schedule, later: int) -> None:
    assert schedule(schedule.final_step) == 1.0
    assert schedule(schedule.final_step + later) == 1.0
    assert not schedule.updates_at(schedule.final_step + 1 + later)
    assert schedule.updates_at(schedule.final_step)


@settings(deadline=None)
@given(st.one_of(ONE_SHOTS, PROGRESSIVES, graduals()))
def test_updates_are_where_the_fraction_changes(schedule: Schedule) -> None:
    held = 0.0
    for step in range(schedule.final_step + 2):
        assert schedule.updates_at(step) == (schedule(step) != held)
        held = schedule(step)
    assert not schedule.moving
    assert schedule.regrowth == 0.0


def test_one_shot() -> None:
    assert [OneShot()(step) for step in (0, 1)] == [1.0, 1.0]
    assert [OneShot(3)(step) for step in (0, 2, 3)] == [0.0, 0.0, 1.0]


def test_progressive_is_the_recipe_of_equal_rises() -> None:
    schedule = Progressive(2, 1000)
    zeros = [schedule(step) * 0.5 for step in (0, 999, 1000, 5000)]
    assert zeros == [0.25, 0.25, 0.5, 0.5]
    assert [step for step in range(3000) if schedule.updates_at(step)] == [0, 1000]
    assert [Progressive(4, 10, 5)(step) for step in (4, 5, 15, 25, 35)] == [0.0, 0.25, 0.5, 0.75, 1.0]


# Worked by hand for x = 1/4, the middle of nothing: where all the kinds differ.
AT_A_QUARTER = {
    "linear": 0.25,
    "cubic": 1 - 27 / 64,
    "cube": 1 / 64,
    "cosine": (1 - math.sqrt(0.5)) / 2,
    "cos": 1 - math.sqrt((1 + math.sqrt(0.5)) / 2),
    "exponential": (1 - 0.1**0.25) / 0.9,
}


@pytest.mark.parametrize("kind", [*KINDS, "exponential"])
def test_gradual_follows_its_formula(kind: str) -> None:
    # A few roundings of numbers below 1: four units in the last place.
    near = pytest.approx(AT_A_QUARTER[kind], rel=0, abs=4 * 2**-53)
    assert Gradual(kind, 100, 500)(200) == near
    risen = pytest.approx(0.2 + 0.8 * AT_A_QUARTER[kind], rel=0, abs=4 * 2**-53)
    assert Gradual(kind, 100, 500, initial=0.2)(200) == risen
    assert Gradual(kind, 100, 500)(100) == 0.0


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.0, 0.9), st.integers(0, 100))
def test_exponential_is_the_geometric_decay_of_the_density(zeros: float, share: float, t: int) -> None:
    # Neural Compressor: 1 - (1 - s0) ((1 - Z) / (1 - s0))^x, with s0 and Z of the whole layer.
    first = share * zeros
    schedule = Gradual("exponential", 0, 100, initial=share, density=(1 - zeros) / (1 - first))
    theirs = 1 - (1 - first) * ((1 - zeros) / (1 - first)) ** (t / 100)
    # The density is rounded once, by 2^-53, which ln amplifies by 1 / (1 - density) < 1000 at the most here.
    assert schedule(t) * zeros == pytest.approx(theirs, rel=0, abs=1000 * 2**-53)


def test_gradual_holds_between_updates_and_ends_in_time() -> None:
    schedule = Gradual("linear", 0, 100, every=30)
    assert [schedule(step) for step in (0, 29, 30, 59, 90, 99, 100)] == [0, 0, 0.3, 0.3, 0.9, 0.9, 1]
    assert [step for step in range(200) if schedule.updates_at(step)] == [30, 60, 90, 100]
    assert Gradual("cubic", 0, 100, initial=0.5).updates_at(0)


def test_refined_moves_until_it_freezes() -> None:
    schedule = SparseRefined(10, every=4)
    assert [step for step in range(30) if schedule.updates_at(step)] == [0, 4, 8, 10]
    assert schedule.moving
    assert schedule.regrowth == 2e-4
    assert {schedule(step) for step in range(30)} == {1.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one-shot", OneShot()),
        (" one-shot:50 ", OneShot(50)),
        ("progressive:2:1000", Progressive(2, 1000)),
        ("progressive:4:10:start=5", Progressive(4, 10, 5)),
        ("gradual:cubic:100:1000:every=50", Gradual("cubic", 100, 1000, every=50)),
        (
            "gradual:exponential:0:9:density=0.5:initial=0.25",
            Gradual("exponential", 0, 9, 1, 0.25, 0.5),
        ),
        ("sr-ste:1000:2e-4", SparseRefined(1000)),
        ("sr-ste:1000", SparseRefined(1000)),
    ],
)
def test_reads_every_form(text: str, expected: Schedule) -> None:
    assert Schedule.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", '\'\' is not a pruning schedule; write it like one of "one-shot", "progressive:2:1000"'),
        ("sometimes", "'sometimes' is not a pruning schedule"),
        ("progressive:2", "it has 1 values where it takes substeps, interval; write it like"),
        ("progressive:x:10", "'x' is not a whole number"),
        ("progressive:0:10", "number of sub-steps of a progressive schedule is a whole number of at least 1"),
        ("gradual:square:0:10", 'is one of "linear", "cubic", "cube", "cosine", "cos", "exponential", but'),
        ("gradual:cubic:10:10", 'starts at step 10 and ends at step 10; use "one-shot"'),
        ("gradual:cubic:0:10:ever=5", "'ever' is not one of its options (every, initial, density)"),
        ("gradual:cubic:every=5:0:10", "options (name=value) come last"),
        ("gradual:cubic:0:10:every=5:every=6", "'every' is given twice"),
        ("gradual:cubic:0:10:initial=1", "initial fraction of a gradual schedule is at least 0 and below 1"),
        ("gradual:cubic:0:10:density=0.5", 'Only "exponential" schedules have a density'),
        ("sr-ste:5:much", "'much' is not a number"),
        ("sr-ste:5:-1", "The strength of SR-STE is a number of at least 0, but it is -1.0."),
        ("sr-ste:5:nan", "The strength of SR-STE is a number of at least 0, but it is nan."),
    ],
)
def test_refuses_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Schedule.parse(text)


@pytest.mark.parametrize("step", [-1, 1.5, True])
def test_refuses_a_step_that_is_none(step: int) -> None:
    with pytest.raises(ValueError, match="The step is a whole number of at least 0, but it is"):
        OneShot()(step)
    with pytest.raises(ValueError, match="The step is a whole number of at least 0, but it is"):
        SparseRefined(3).updates_at(step)
