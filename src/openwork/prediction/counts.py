"""What a kernel does for a layer with a pattern, counted on weights that the kernels' own packing has packed.

Weights with random zeros of the pattern are packed for the instruction set that has every form and runs
everywhere, in plain code: the steps, the bytes and the lines are those of any machine that has the form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from openwork.backends.cpu import packing
from openwork.backends.library import native
from openwork.engine.problem import DENSE, Convolution, MatrixProduct, Sizes
from openwork.patterns.drawn import drawn_mask
from openwork.patterns.pattern import Pattern

EVERY_FORM = "amx_emulated"
"""The instruction set that weights are packed for."""

_SAMPLE = 512
"""Output channels that are drawn at most: a whole number of each form's groups. More of them take as much
each."""

_LANES, _LINE = 16, 64
_STRIPS_OF_DENSE_TILES = 2
_STEP_WORK, _LINE_WORK = 2, 2
"""Of `PackedWeights.work` of the matrix unit's forms (native/kernels/tiles/rules.cc), what a step of a strip
and a line of the panel count; what is left counts the lines that steps pick from."""


@dataclass(frozen=True)
class Count:
    """What a form does for a layer.

    products : dot products of 16 channels by four bytes, of each row. bytes : of packed weights. lines :
    lines of 64 bytes that are copied of each row. picks : lines of each row that steps pick from. expanded :
    lines of weights that are expanded. together : rows that are made at once, whether there are as many or
    not. body : how the form is multiplied.
    """

    form: str
    body: str
    products: float
    bytes: float
    lines: float
    picks: float
    expanded: float
    together: int


def count_forms(sizes: Sizes, pattern: str | None, forms: tuple[str, ...]) -> tuple[Count, ...]:
    """The count of each of `forms` that holds such a layer; pattern : a text, or None for dense weights."""
    counts = (_count(_shape(sizes), sizes.n, pattern, form) for form in forms)
    return tuple(count for count in counts if count is not None)


def _shape(sizes: Sizes) -> tuple[int, ...]:
    """The shape of the weights that are drawn."""
    n = min(sizes.n, _SAMPLE)
    if isinstance(sizes, MatrixProduct):
        return n, sizes.k
    assert isinstance(sizes, Convolution)
    return n, *sizes.kernel, sizes.channels


@cache
def _drawn(shape: tuple[int, ...], pattern: str | None) -> packing.Layer:
    """Weights of a shape with the zeros of a pattern, the same in every process."""
    n, channels = shape[0], shape[-1]
    rng = np.random.default_rng(0)
    parsed = None if pattern is None else Pattern.parse(pattern)
    mask = drawn_mask(rng, (n, int(np.prod(shape[1:-1], dtype=int)), channels), parsed)
    return packing.Layer(mask.astype(np.int8).reshape(shape), EVERY_FORM)


@cache
def _count(shape: tuple[int, ...], n: int, pattern: str | None, form: str) -> Count | None:
    layer = _drawn(shape, pattern)
    if layer.refusal(form):
        return None
    packed = packing.pack(layer, layer.tactic(form))
    known, scale = native().form(form), n / shape[0]
    lines = -(-packed.k // _LINE)
    if known.body != "tiles":
        return Count(
            form=form,
            body=known.body,
            products=scale * packed.nbytes / (_LINE * _stored(known)),
            bytes=scale * packed.nbytes,
            lines=lines if known.rows_at_once > 1 else 0,
            picks=0,
            expanded=0,
            together=known.rows_at_once,
        )
    steps = packed.steps * (known.share or _STRIPS_OF_DENSE_TILES)
    return Count(
        form=form,
        body=known.body,
        products=scale * steps * _LANES,
        bytes=scale * packed.nbytes,
        lines=lines,
        picks=scale * (packed.work - _STEP_WORK * steps - _LINE_WORK * lines),
        expanded=scale * steps * _LANES if known.few_rows else 0,
        together=_LANES,
    )


def _stored(known: object) -> float:
    """Bytes that a form over windows or blocks stores for each byte of a weight: itself and its index."""
    shuffled = known.body == "windows" and known.share > 0  # type: ignore[attr-defined]
    return 1 + known.bits / 8 / known.share if shuffled else 1  # type: ignore[attr-defined]


def whole_forms() -> frozenset[str]:
    """The forms that a dense layer is predicted in."""
    return frozenset({DENSE, "tiles"})
