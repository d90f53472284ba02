"""From what an observer saw to a scale: by its range, or by a search over the rows that it kept."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from openwork.qdq.affine import Activation, choose_affine
from openwork.quantization.observers.observer import Observer, RowObserver
from openwork.quantization.scales.cache import CacheEntry
from openwork.quantization.scales.search import InputQuantization, Sample, search


def choose_input(
    observer: Observer, activation: Activation, weight: Callable[[], Tensor], migrate: bool
) -> InputQuantization:
    """How the observed tensor is to be quantized.

    weight: gives f32 [N, K], the weights of all layers that read the tensor; asked for by a search only.
    migrate: let the search try multipliers. Raises ValueError if the observer saw nothing.
    """
    low, high = observer.range()
    if not isinstance(observer, RowObserver) or low == high == 0.0:
        return InputQuantization(choose_affine(low, high, activation))
    rows, all_weights = observer.rows, weight()
    sample = Sample(rows, observer.channel_low, observer.channel_high, all_weights, rows @ all_weights.T)
    return search(sample, activation, migrate, observer.name)


def entry(observer: Observer, found: InputQuantization) -> CacheEntry:
    """What was chosen, as the calibration cache holds it."""
    affine, by = found.affine, found.multiplier
    low, high = observer.range()
    multiplier = None if by is None else tuple(by.tolist())
    return CacheEntry(affine.dtype, affine.scale, affine.zero_point, low, high, observer.values, multiplier)
