"""Observers against exact quantiles of the same data."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from openwork.qdq.affine import choose_affine, dequantize, quantize
from openwork.quantization.observers.observer import (
    MaxObserver,
    ObserverKind,
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


# Per channel.


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["max", "moving", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_channels_range_is_that_of_an_observer_of_it_alone(
    kind: ObserverKind, axis: int, symmetric: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    shape = (4, 3, 5)
    batches = [torch.randn(*shape, 200, generator=generator).movedim(-1, 0) for _ in range(3)]
    channel_axis = axis if axis < 0 else axis + 1
    together = make_observer(kind, "layer", 99.0, symmetric, channel_axis)
    channels = batches[0].shape[channel_axis]
    alone = [make_observer(kind, "layer", 99.0, symmetric) for _ in range(channels)]
    for batch in batches:
        together.observe(batch)
        for channel, observer in enumerate(alone):
            observer.observe(batch.select(channel_axis, channel))
    low, high = together.ranges()
    assert low.shape == high.shape == (channels,)
    for channel, observer in enumerate(alone):
        wanted_low, wanted_high = observer.range()
        # Channels have fewer bins, so a rule may choose another edge; the values 5 are a few hundred bins.
        tolerance = 0.0 if kind in ("max", "moving") else 0.01 if kind == "percentile" else 0.6
        assert abs(float(low[channel]) - wanted_low) <= tolerance
        assert abs(float(high[channel]) - wanted_high) <= tolerance
    assert together.range() == (float(low.min()), float(high.max()))


def test_the_channels_must_stay_the_same() -> None:
    observer = make_observer("percentile", "conv", axis=1)
    observer.observe(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="input of conv has 4 channels along axis 1, but 3 before"):
        observer.observe(torch.ones(2, 4, 3))
    with pytest.raises(ValueError, match="input of conv has 1 dimensions, so it has no channel axis 1"):
        observer.observe(torch.ones(3))
    rows = RowObserver("rows")
    rows.observe(torch.ones(2, 4))
    with pytest.raises(ValueError, match="input of rows has rows of 3, but of 4 before"):
        rows.observe(torch.ones(2, 3))


# What should be looked at.


def test_one_batch_zeros_and_dead_channels_are_concerns_that_name_the_layer() -> None:
    observer = MaxObserver("encoder.query")
    assert observer.concerns() == ()
    observer.observe(torch.zeros(3))
    assert observer.concerns() == (
        "The input of encoder.query was seen in one batch only; its range may be too narrow.",
        "The input of encoder.query was zero throughout calibration; its scale is set to 1.",
    )
    observer.observe(torch.ones(3))
    assert observer.concerns() == ()
    channels = MaxObserver("conv", axis=1)
    for _ in range(2):
        channels.observe(torch.tensor([[0.0, 1.0] + [0.0] * 10]))
    (concern,) = channels.concerns()
    assert concern == (
        "11 of 12 channels of the input of conv were zero throughout calibration "
        "(0, 2, 3, 4, 5, 6, 7, 8, ...); their scale is set to 1."
    )


@pytest.mark.parametrize("kind", ["output", "max", "moving", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-42, 1e38])
def test_constant_data_of_any_size_has_a_range(kind: ObserverKind, value: float) -> None:
    for symmetric in (True, False):
        observer = make_observer(kind, "layer", 99.9, symmetric)
        observer.observe(torch.full((2, 50), value))
        low, high = observer.range()
        affine = choose_affine(low, high, "s8" if symmetric else "u8")
        x = np.full(1, value, np.float32)
        # Within a bin of the histogram, and a step.
        assert abs(float(dequantize(quantize(x, affine), affine)[0]) - value) <= abs(value) * 2**-6 + 1e-38


def test_a_single_number_and_an_empty_tensor_are_data_too() -> None:
    for kind in get_args(ObserverKind):
        observer = make_observer(kind, "layer")
        observer.observe(torch.tensor(2.0))
        observer.observe(torch.zeros(0, 1))
        assert observer.values == observer.batches == 1
        assert observer.range()[1] == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("kind", get_args(ObserverKind))
def test_what_was_observed_under_inference_mode_can_go_on_outside(kind: ObserverKind) -> None:
    inside, outside = (make_observer(kind, "layer", symmetric=False) for _ in range(2))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inside.observe(x * 1)
    for observer in (inside, outside):
        observer.observe(x.clone().requires_grad_() * 3)
        observer.observe(-x)
    inside.merge(outside)
    assert inside.values == 150
    assert inside.range()[1] > 0
