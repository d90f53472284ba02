"""Interleaved timing: order, counts, statistics and words. Nothing here asserts how fast anything is."""

import time

import numpy as np
import pytest

from openwork.bench import latency as bench

QUICK = bench.Options(warm_up=0.0, duration=1e-9, turn=1e-9, settle=0.0, minimum_rounds=4)


def _timing(samples: list[float], turns: list[float] | None = None) -> bench.Timing:
    return bench.Timing(np.array(samples), np.array(samples if turns is None else turns))


def test_every_round_runs_every_callable_and_starts_with_the_next() -> None:
    calls: list[str] = []
    timings = bench.measure({name: lambda name=name: calls.append(name) for name in "abc"}, QUICK)
    warm_up, turns = calls[:3], calls[3:]
    assert warm_up == ["a", "b", "c"]
    # A turn here is one untimed and one timed call.
    assert turns[::2] == turns[1::2] == list("abcbcacababc")
    assert [len(timing.samples) for timing in timings.values()] == [4, 4, 4]
    assert [len(timing.turns) for timing in timings.values()] == [4, 4, 4]


def test_a_turn_lasts_until_its_time_is_used() -> None:
    options = bench.Options(warm_up=0.0, duration=0.02, turn=0.01, settle=0.0, minimum_rounds=2)
    timing = bench.measure({"sleep": lambda: time.sleep(0.001)}, options)["sleep"]
    assert timing.samples.sum() >= 20
    assert len(timing.samples) > len(timing.turns) >= 2
    assert timing.samples.min() >= 1


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    bench.measure({"nothing": lambda: None}, QUICK, told.append)
    assert told == sorted(told)
    assert told[-1] == 1


def test_a_failing_callable_is_not_hidden() -> None:
    def fail() -> None:
        raise RuntimeError("broken runner")

    with pytest.raises(RuntimeError, match="broken runner"):
        bench.measure({"fine": lambda: None, "broken": fail}, QUICK)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to measure"):
        bench.measure({}, QUICK)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("duration", 0.0, "duration must be positive; it is 0.0"),
        ("turn", -1.0, "turn must be positive; it is -1.0"),
        ("minimum_rounds", 0, "minimum_rounds must be positive; it is 0"),
        ("warm_up", -0.1, "warm_up is a time in seconds, 0 or more; it is -0.1"),
        ("settle", float("nan"), "settle is a time in seconds, 0 or more; it is nan"),
    ],
)
def test_options_refuse(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench.Options(**{name: value})


def test_statistics_of_known_samples() -> None:
    timing = _timing([1.0, 2.0, 3.0, 4.0, 10.0])
    assert timing.median == 3
    assert timing.mean == 4
    assert timing.percentile(75) == 4
    assert timing.throughput(8) == 2000
    assert timing.variation == pytest.approx(np.sqrt(10) / 4, rel=1e-15, abs=0)


def test_the_ratio_compares_round_by_round() -> None:
    # The second round was disturbed for both; the ratio of their means would be far from 2.
    base, other = _timing([2.0, 200.0, 2.2]), _timing([1.0, 100.0, 1.0])
    assert bench.ratio(base, other) == 2


def test_a_ratio_of_different_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="these have 2 and 3 rounds"):
        bench.ratio(_timing([1.0, 1.0]), _timing([1.0, 1.0, 1.0]))


def test_summary_in_the_words_of_trtexec() -> None:
    assert bench.summary(_timing([2.0] * 20), items=4) == [
        "=== Performance summary ===",
        "Throughput: 2000 qps",
        "Latency: min = 2 ms, max = 2 ms, mean = 2 ms, median = 2 ms, "
        "percentile(90%) = 2 ms, percentile(95%) = 2 ms, percentile(99%) = 2 ms",
    ]


def test_a_restless_measurement_warns() -> None:
    assert bench.variation_warning(_timing([1.0, 1.02])) is None
    warning = bench.variation_warning(_timing([1.0, 2.0]))
    assert warning is not None
    assert warning.startswith("The latency varies by 33.3% of its mean, more than 2.5%;")
    assert bench.summary(_timing([1.0, 2.0]))[-1] == warning


def test_the_record_is_plain_numbers() -> None:
    record = _timing([1.0, 3.0]).record()
    assert record["calls"] == 2
    assert record["median"] == 2
    assert record["maximum"] == 3
    assert set(map(type, record.values())) <= {int, float}
