"""Ranges against independent calculations: plain loops over the steps as they are written, NumPy on raw data,
torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.ao.quantization.observer import MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver

from openwork.qdq.affine import choose_affine, dequantize, quantize
from openwork.quantization.observers.bins import Bins
from openwork.quantization.observers.entropy import MOST_BINS, Divergence, Entropy
from openwork.quantization.observers.mse import MeanSquare, SquaredError
from openwork.quantization.observers.observer import (
    EntropyObserver,
    MovingObserver,
    MseObserver,
    PercentileObserver,
)

Values = NDArray[np.float32]


def _data(kind: str, seed: int, count: int = 20_000) -> Values:
    random = np.random.default_rng(seed)
    x = {
        "normal": lambda: random.standard_normal(count),
        "relu": lambda: np.maximum(random.standard_normal(count), 0),
        "heavy": lambda: random.standard_t(3, count),
        "lopsided": lambda: random.gamma(2.0, 1.0, count) - 0.5,
        "negative": lambda: -random.gamma(2.0, 1.0, count),
    }[kind]()
    return x.astype(np.float32)


def _bins(counts: list[int], below: int = 0, width: float = 1.0) -> Bins:
    array = np.array(counts)
    low, high = -below * width, (len(counts) - below) * width
    return Bins(array, below, width, 0, low, high, folded=below == 0)


# Entropy.


def plain_divergence(counts: NDArray[np.int64], start: int, end: int, levels: int) -> float:
    """One candidate by the steps: the bins with the tails added to the ends, against the same bins collapsed
    to the levels and expanded over those that are not empty."""
    reference = counts[start:end].astype(np.float64)
    collapsed = np.zeros(end - start)
    for level in range(levels):
        members = [i for i in range(end - start) if i * levels // (end - start) == level]
        filled = [i for i in members if counts[start + i] > 0]
        for i in filled:
            collapsed[i] = sum(counts[start + m] for m in members) / len(filled)
    reference[0] += counts[:start].sum()
    reference[-1] += counts[end:].sum()
    p, q = reference / reference.sum(), collapsed / max(collapsed.sum(), 1e-300)
    return sum(math.inf if b == 0 else a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_divergence_of_every_range_is_that_of_the_plain_steps(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.poisson(np.exp(-np.linspace(0, 6, 90)) * 40)
    below, levels = (0, 16) if seed % 2 else (30, 32)
    divergence = Divergence(_bins(list(counts), below), levels)
    for low in (0,) if below == 0 else (-below, -17, 0):
        for high in range(levels, len(counts) - below + 1):
            found = float(divergence(np.array([low]), np.array([high]))[0])
            wanted = plain_divergence(counts, below + low, below + high, levels)
            # A hundred terms of at most 10, each rounded a few times in binary64.
            assert found == pytest.approx(wanted, abs=1e-11), (seed, low, high)


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy"])
def test_entropy_chooses_the_amax_that_a_plain_loop_chooses(kind: str) -> None:
    x = np.abs(_data(kind, 0))
    observer = EntropyObserver("layer")
    for part in np.array_split(x, 5):
        observer.observe(torch.from_numpy(part))
    bins = observer.bins().coarsened(MOST_BINS)
    counts = np.histogram(x[x > 0], bins=len(bins.counts), range=(0, len(bins.counts) * bins.width))[0]
    assert np.array_equal(counts, bins.counts)
    top = bins.ends[1]
    # Every 48th edge counted from the top: all of them would take the loop minutes.
    tried = np.arange(top, 127, -48)
    costs = [plain_divergence(counts, 0, int(end), 128) for end in tried]
    best = float(min(costs))
    chosen = round(float(observer.range()[1]) / bins.width)
    at_chosen = plain_divergence(counts, 0, min(chosen, top), 128)
    assert at_chosen <= best + 1e-11
    found = Divergence(bins, 128)(np.zeros_like(tried), tried)
    assert np.allclose(found, costs, rtol=0, atol=1e-10)


def test_entropy_clips_what_is_rare_and_keeps_what_is_not() -> None:
    x = _data("normal", 1)
    x[0] = 40.0
    observer = EntropyObserver("layer")
    observer.observe(torch.from_numpy(x))
    assert 2.5 < observer.range()[1] < 10
    assert observer.range()[0] == -observer.range()[1]
    flat = EntropyObserver("layer")
    flat.observe(torch.linspace(0, 1, 20_000))
    assert flat.range()[1] > 0.9


@pytest.mark.parametrize("kind", ["normal", "relu", "lopsided", "negative"])
@pytest.mark.parametrize("observer_of", [EntropyObserver, MseObserver])
def test_an_asymmetric_range_holds_zero_and_lies_in_what_was_seen(kind: str, observer_of: type) -> None:
    x = _data(kind, 2)
    observer = observer_of("layer", symmetric=False)
    observer.observe(torch.from_numpy(x))
    low, high = observer.range()
    assert min(float(x.min()), 0) <= low <= 0 <= high <= max(float(x.max()), 0)
    inside = ((x >= low) & (x <= high)).mean()
    assert inside > 0.98
    clipped = choose_affine(low, high, "u8")
    whole = choose_affine(float(x.min()), float(x.max()), "u8")
    error = [float(np.square(dequantize(quantize(x, a), a) - x).mean()) for a in (clipped, whole)]
    if observer_of is MseObserver:
        # The zero point's own rounding is in the candidates' error too; the histogram's is not.
        assert error[0] <= error[1] * 1.01


# MSE.


def _raw_error(x: Values, amax: float) -> float:
    scale = amax / 127
    q = np.clip(np.rint(x.astype(np.float64) / scale), -127, 127)
    return float(np.sqrt(np.square(q * scale - x).mean()))


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "lopsided"])
def test_mse_is_within_a_bin_of_the_least_error_on_raw_data(kind: str) -> None:
    x = _data(kind, 3, 4000)
    observer = MseObserver("layer")
    for part in np.array_split(x, 3):
        observer.observe(torch.from_numpy(part))
    amax = observer.range()[1]
    largest = float(np.abs(x).max())
    errors = {a: _raw_error(x, a) for a in np.linspace(largest / 40, largest, 600)}
    # By the triangle inequality the histogram's root mean square is off by half a bin for each of the two
    # ranges.
    width = float(observer.histogram.width)
    assert _raw_error(x, amax) <= min(errors.values()) + width
    assert amax <= largest


def test_mse_finds_the_amax_of_raw_data_where_it_is_sharp() -> None:
    # 127 levels of equal weight: any other range than theirs misses them.
    x = np.repeat(np.arange(-127, 128) * np.float32(0.03), 50).astype(np.float32)
    x = np.append(x, np.float32(5.0))
    observer = MseObserver("layer")
    observer.observe(torch.from_numpy(x))
    tried = np.linspace(3.0, 5.0, 4001)
    wanted = float(tried[np.argmin([_raw_error(x, a) for a in tried])])
    # The bins hide where in them a value lies, on either side of the best, and the candidates are a bin
    # apart.
    assert abs(observer.range()[1] - wanted) <= 3 * float(observer.histogram.width)


@pytest.mark.parametrize(("below", "steps"), [(0, 127), (40, 255), (90, 255)])
def test_the_squared_error_is_that_of_quantizing_the_centres(below: int, steps: int) -> None:
    random = np.random.default_rng(below)
    counts = random.integers(0, 20, 300)
    bins = _bins(list(counts), below)
    centres = np.arange(300) - below + 0.5
    for low, high in ((-below, 300 - below), (-(below // 2), 150), (-below, 97)):
        scale = (high - low) / steps
        zero_point = float(np.rint(-low / scale))
        q = np.clip(np.rint(centres / scale) + zero_point, 0, steps) - zero_point
        wanted = float((counts * np.square(q * scale - centres)).sum())
        found = float(SquaredError(bins, steps)(np.array([low]), np.array([high]))[0])
        # 300 squares of up to 300, summed with cancellation in binary64.
        assert found == pytest.approx(wanted, abs=1e-6)


def test_a_rule_without_values_gives_no_extent() -> None:
    empty = _bins([0] * 8)
    assert Entropy()(empty) == (0.0, 0.0)
    assert MeanSquare()(empty) == (0.0, 0.0)


# Percentile.


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "lopsided"])
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_a_percentile_is_numpys_within_a_bin(kind: str, percentile: float) -> None:
    x = np.abs(_data(kind, 4, 200_000))
    observer = PercentileObserver("layer", percentile)
    for part in np.array_split(x, 7):
        observer.observe(torch.from_numpy(part))
    # Definitions of a quantile differ by up to one place among the sorted values.
    ordered = np.sort(x)
    place = int(percentile / 100 * len(x))
    below, above = ordered[max(place - 2, 0)], ordered[min(place + 2, len(x) - 1)]
    width = float(observer.histogram.width)
    assert below - width <= observer.range()[1] <= above + width
    assert below <= np.percentile(x, percentile) <= above


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_a_histogram_widened_at_constant_bin_width_gives_the_same_percentile(percentile: float) -> None:
    """pytorch-quantization: 2048 bins over the first batch's magnitudes, more of the same width for later
    ones."""
    batches = [_data("normal", seed) * scale for seed, scale in enumerate((1.0, 2.5, 0.3))]
    first = float(np.abs(batches[0]).max())
    width = first / 2048
    bins = max(math.ceil(float(np.abs(batch).max()) / width) for batch in batches)
    edges = np.arange(bins + 1) * width
    counts = sum(np.histogram(np.abs(batch), edges)[0] for batch in batches)
    cumulative = np.cumsum(counts) / counts.sum()
    wanted = edges[np.searchsorted(cumulative, percentile / 100)]
    observer = PercentileObserver("layer", percentile)
    for batch in batches:
        observer.observe(torch.from_numpy(batch))
    # It takes the lower edge of the bin, this the place within a bin of its own.
    own = float(observer.histogram.width)
    assert -width - own <= wanted - observer.range()[1] <= own


# Moving average.


@pytest.mark.parametrize("axis", [None, 1])
def test_a_moving_range_is_torchs(axis: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 3, 5, generator=generator) * (1 + i / 10) for i in range(40)]
    theirs = (
        MovingAverageMinMaxObserver() if axis is None else MovingAveragePerChannelMinMaxObserver(ch_axis=axis)
    )
    ours = MovingObserver("layer", axis)
    for batch in batches:
        theirs(batch)
        ours.observe(batch)
    # Forty steps of a few roundings in binary32, on values below 20.
    low, high = ours.ranges()
    assert torch.allclose(low.float(), theirs.min_val, rtol=40 * 2**-22, atol=0)
    assert torch.allclose(high.float(), theirs.max_val, rtol=40 * 2**-22, atol=0)


def test_what_a_moving_range_forgets_weighs_less_than_a_rounding() -> None:
    observer = MovingObserver("layer", share=0.5)
    assert observer.most == 24
    values = [1000.0] + [1.0 + i / 100 for i in range(60)]
    average = values[0]
    for i, value in enumerate(values):
        observer.observe(torch.tensor([-value, value]))
        average = value if i == 0 else average + 0.5 * (value - average)
    assert observer.range()[1] == pytest.approx(average, rel=2**-23)
