"""Times of single products: every form that a pattern may take, over a grid of sizes and rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openwork import Pattern
from openwork.backends.cpu import packing
from openwork.backends.library import native
from openwork.engine.problem import MatrixProduct
from openwork.patterns.drawn import drawn_mask
from openwork.prediction.counts import Count, count_forms

DENSE = "dense"
SIZES = tuple(
    MatrixProduct(n, k)
    for k, n in ((384, 384), (384, 1536), (1536, 384), (768, 768), (768, 3072), (3072, 768), (576, 128))
)
ROWS = (1, 4, 16, 49, 128, 512)
PATTERNS = (
    DENSE,
    "2:4",
    "32:64",
    "16:64",
    "8:64",
    "2:4@2",
    "16:64@2",
    "4:16",
    "2:4@4",
    "1x4:0.75",
    "4x16:0.85",
)

# A form of more work than dense is nobody's choice, and its times would pull the fit away from the others.
MOST_WORK = 1.2
# Each time is the lower quartile of so many calls, which last about so long together.
CALLS, SECONDS = (5, 41), 0.03


@dataclass(frozen=True)
class Time:
    """What one product took, in seconds, and what it did."""

    pattern: str
    sizes: MatrixProduct
    rows: int
    count: Count
    seconds: float


def times(isa: str, sizes: tuple[MatrixProduct, ...] = SIZES, rows: tuple[int, ...] = ROWS) -> Iterator[Time]:
    """Every time of the grid, on one thread."""
    for size in sizes:
        for pattern in PATTERNS:
            layer = _layer(size, pattern, isa)
            counts = {c.form: c for c in count_forms(size, _text(pattern), _forms(layer, pattern))}
            packed = {form: packing.pack(layer, layer.tactic(form)) for form in counts}
            for count in rows:
                for form, weights in packed.items():
                    yield Time(pattern, size, count, counts[form], _seconds(weights, count))


def _text(pattern: str) -> str | None:
    return None if pattern == DENSE else pattern


def _layer(size: MatrixProduct, pattern: str, isa: str) -> packing.Layer:
    rng = np.random.default_rng(1)
    parsed = None if pattern == DENSE else Pattern.parse(pattern)
    mask = drawn_mask(rng, (size.n, 1, size.k), parsed).reshape(size.n, size.k)
    weight = rng.integers(1, 128, mask.shape) * rng.choice([-1, 1], mask.shape) * mask
    return packing.Layer(weight.astype(np.int8), isa)


def _forms(layer: packing.Layer, pattern: str) -> tuple[str, ...]:
    if pattern == DENSE:
        return (DENSE,)
    work = packing.expected_work(layer, packing.sparse_forms(layer.isa))
    return tuple(form for form, value in work.items() if not isinstance(value, str) and value <= MOST_WORK)


def _seconds(weights: object, rows: int) -> float:
    once = float(np.median(native().time_linear([weights], rows, repeats=3)))
    calls = int(np.clip(SECONDS / once, *CALLS))
    return float(np.quantile(native().time_linear([weights], rows, repeats=calls), 0.25))
