"""Observers against exact quantiles of the same data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from openwork.quantization.observer import (
    MaxObserver,
    PercentileObserver,
    RowObserver,
    make_observer,
)


def _batches(seed: int, scales: list[float]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(40, 25, generator=generator) * scale for scale in scales]


def test_max_takes_in_every_batch() -> None:
    observer = MaxObserver("layer")
    for batch in (torch.tensor([1.0, 2.0]), torch.tensor([-5.0]), torch.zeros(0)):
        observer.observe(batch)
    assert observer.range() == (-5.0, 2.0)
    assert observer.values == 3


@pytest.mark.parametrize("scales", [[1.0, 1.0, 1.0], [0.01, 1.0, 30.0], [30.0, 1.0, 0.01]])
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_a_percentile_is_the_exact_one_within_a_bin(scales: list[float], percentile: float) -> None:
    batches = _batches(0, scales)
    x = torch.cat(batches).flatten().double()
    symmetric, both = (
        PercentileObserver("a", percentile),
        PercentileObserver("b", percentile, symmetric=False),
    )
    for batch in batches:
        symmetric.observe(batch)
        both.observe(batch)
    rest = (100 - percentile) / 200
    expected = [np.quantile(x.abs(), percentile / 100), np.quantile(x, rest), np.quantile(x, 1 - rest)]
    found = [symmetric.range()[1], *both.range()]
    # A bin's width, and the gap between neighbouring values, across which definitions of a quantile differ.
    ordered = x.abs().sort().values
    gap = float((ordered[1:] - ordered[:-1])[-40:].max())
    for got, wanted in zip(found, expected, strict=True):
        assert abs(got - wanted) <= float(symmetric.histogram.width) + gap
    assert symmetric.range()[0] == -symmetric.range()[1]


def test_the_whole_percentile_is_the_maximum() -> None:
    observer = PercentileObserver("layer", 100.0)
    for batch in _batches(3, [1.0, 2.0]):
        observer.observe(batch)
    assert observer.range()[1] == max(-observer.low, observer.high)


def test_zeros_count_though_they_set_no_width() -> None:
    observer = PercentileObserver("layer", 75.0)
    observer.observe(torch.zeros(300))
    assert observer.range() == (-0.0, 0.0)
    observer.observe(torch.full((100,), 2.0))
    assert observer.range()[1] < 0.01
    observer.observe(torch.full((1200,), 2.0))
    assert observer.range()[1] > 1.9


def test_rows_are_a_bounded_sample_and_ranges_cover_all() -> None:
    observer = RowObserver("layer", most=64)
    for batch in _batches(1, [1.0, 1.0, 5.0]):
        observer.observe(batch.reshape(4, 10, 25))
    x = torch.cat(_batches(1, [1.0, 1.0, 5.0]))
    assert torch.equal(observer.channel_high, x.amax(0))
    assert torch.equal(observer.channel_low, x.amin(0))
    assert 32 <= len(observer.rows) <= 64
    known = {tuple(row.tolist()) for row in x}
    assert all(tuple(row.tolist()) in known for row in observer.rows)
    # Later batches are as likely to be kept as the first: a third each, within a wide margin.
    assert 8 <= sum(float(row.abs().max()) > 5 for row in observer.rows) <= 40


def test_sampling_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    RowObserver("layer", most=4).observe(torch.ones(100, 2))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["output", "max", "moving", "percentile", "entropy", "mse"])
def test_nothing_seen_and_nan_are_errors_that_name_the_layer(kind: str) -> None:
    observer = make_observer(kind, "encoder.query", 99.9, True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"No data reached the input of encoder\.query"):
        observer.range()
    x = torch.ones(2, 3)
    x[0, 1] = torch.nan
    with pytest.raises(
        ValueError, match=r"input of encoder\.query holds 1 values that are NaN or infinite, of 6"
    ):
        observer.observe(x)


def test_odd_observers_are_refused() -> None:
    with pytest.raises(ValueError, match='"percentile", "entropy" or "mse", but it is \'kl\''):
        make_observer("kl", "layer", 99.9, True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one range for all channels, so it takes no axis \(layer\)"):
        make_observer("output", "layer", axis=1)
    with pytest.raises(ValueError, match=r"between 50 and 100, but it is 0\.999"):
        PercentileObserver("layer", 0.999)
