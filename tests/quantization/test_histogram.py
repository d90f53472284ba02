"""Histograms on the fixed grid: the counts are NumPy's, whatever the order, the batches and the worker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from openwork.quantization.observers.histogram import LEAST_EXPONENT, Histogram

SCALES = st.lists(st.tuples(st.integers(-60, 60), st.booleans()), min_size=1, max_size=6)


def _batches(scales: list[tuple[int, bool]], seed: int, rows: int) -> list[Tensor]:
    """Batches f32 [rows, n] of very different magnitudes, some without negative values, with zeros among
    them."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for exponent, positive in scales:
        x = torch.randn(rows, 30, generator=generator) * 2.0**exponent
        x[:, ::7] = 0
        batches.append(x.abs() if positive else x)
    return batches


def _add(histogram: Histogram, x: Tensor) -> None:
    low, high = torch.aminmax(x, dim=1)
    histogram.add(x, low, high)


def _of(batches: list[Tensor], channels: int | None, bins_log2: int | None = 6) -> Histogram:
    histogram = Histogram(channels, bins_log2)
    for batch in batches:
        _add(histogram, batch)
    return histogram


def _equal(a: Histogram, b: Histogram) -> bool:
    """The same grid and counts; negative counts that were never made are zeros."""
    both = torch.equal(a.both()[0], b.both()[0]) if a.both()[1] == b.both()[1] else False
    return both and torch.equal(a.exponent, b.exponent) and torch.equal(a.zeros, b.zeros)


@given(SCALES, st.integers(0, 1000), st.sampled_from([None, 3]))
@settings(max_examples=100, deadline=None)
def test_counts_are_those_of_numpy(scales: list[tuple[int, bool]], seed: int, channels: int | None) -> None:
    rows = channels or 1
    batches = _batches(scales, seed, rows)
    histogram = _of(batches, channels)
    x = torch.cat(batches, dim=1).double()
    for row in range(rows):
        width = float(histogram.width[row])
        values = x[row][x[row] != 0].numpy()
        sign, bin_ = values > 0, np.floor(np.abs(values) / width).astype(int)
        assert bin_.max(initial=0) < 64
        wanted = np.bincount(bin_[sign], minlength=64)
        assert np.array_equal(histogram.positive[row].numpy(), wanted)
        found = np.zeros(64) if histogram.negative is None else histogram.negative[row].numpy()
        assert np.array_equal(found, np.bincount(bin_[~sign], minlength=64))
        assert int(histogram.zeros[row]) == int((x[row] == 0).sum())
        largest = np.abs(values).max(initial=0)
        # As fine as 64 bins allow: the largest value lies in the upper half.
        assert largest < 64 * width
        assert largest >= 32 * width or histogram.exponent[row] == LEAST_EXPONENT


@given(SCALES, st.integers(0, 1000), st.sampled_from([None, 3]), st.randoms())
@settings(max_examples=100, deadline=None)
def test_neither_order_nor_workers_change_a_count(
    scales: list[tuple[int, bool]], seed: int, channels: int | None, random: object
) -> None:
    batches = _batches(scales, seed, channels or 1)
    whole = _of(batches, channels)
    shuffled = list(batches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _equal(whole, _of(shuffled, channels))
    cut = len(shuffled) // 2
    left, right = _of(shuffled[:cut], channels), _of(shuffled[cut:], channels)
    left.merge(right)
    assert _equal(whole, left)


def test_tiny_values_keep_their_sign_and_bin_whatever_comes_before() -> None:
    tiny, large = torch.tensor([[-1e-45, 1e-45, -0.0, 0.0]]), torch.tensor([[3e38, -3e38, 1.0, -1.0]])
    first, last = _of([tiny, large], None, 4), _of([large, tiny], None, 4)
    assert _equal(first, last)
    assert first.negative is not None
    assert int(first.zeros) == 2
    assert int(first.negative.sum()) == int(first.positive.sum()) == 3


def test_memory_is_bounded_and_shared_by_the_channels() -> None:
    torch.manual_seed(0)  # of three numbers one in eight draws has no negative one

    def size(histogram: Histogram) -> int:
        assert histogram.negative is not None
        return (histogram.positive.numel() + histogram.negative.numel()) * 8

    one = _of([torch.randn(1, 100) * 10.0**e for e in range(-30, 30)], None, None)
    assert size(one) == 2 * (1 << 14) * 8
    for channels in (1, 64, 256, 2048):
        histogram = Histogram(channels)
        _add(histogram, torch.randn(channels, 3))
        assert size(histogram) <= max(2 << 20, channels * 512 * 16)


def test_large_tensors_are_counted_in_parts() -> None:
    x = torch.randn(1, 700_001, generator=torch.Generator().manual_seed(0))
    histogram = _of([x], None, None)
    width = float(histogram.width)
    wanted = np.bincount(np.floor(x[x > 0].double().numpy() / width).astype(int), minlength=1 << 14)
    assert np.array_equal(histogram.positive[0].numpy(), wanted)


def test_other_grids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"of 3 channels and 2\^6 bins cannot take in one of None"):
        Histogram(3, 6).merge(Histogram(None, 6))
    state = Histogram(3, 6).state_dict()
    with pytest.raises(ValueError, match="has 3 channels of 64 bins, but 1 channels of 32 bins are expected"):
        Histogram(None, 5).load_state_dict(state)
