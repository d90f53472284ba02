"""The samples that engines of a model are checked on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.runtime.engine import Engine

Array = NDArray[Any]
Arrays = Mapping[str, Array]


def samples(engine: Engine, shapes: Sequence[tuple[int, ...]]) -> Iterator[Arrays]:
    """Samples to try: two or more of everything, and with masks that drop something, where that may be.

    shapes : that the build times, one size per free dimension of the inputs.
    """
    smallest = min(shapes, key=np.prod)
    at_least_two = tuple(max(size, 2) for size in smallest)
    # A table of few positions takes no more than a few.
    for shape in dict.fromkeys((at_least_two, smallest, tuple(min(size, 4) for size in at_least_two))):
        plain = engine.sample(shape)
        yield {name: _mixed(array) for name, array in plain.items()}
        yield plain


def of_other_sizes(engine: Engine, stated: Mapping[str, Sequence[object]], feed: Arrays) -> Arrays | None:
    """The samples with other sizes where an engine takes one size alone and the model leaves it free; None
    where there is no such place.

    stated : for each input of the model its shape, an integer for each axis of one size.
    """
    fixed = {
        _place(info.name, axis, dim): size
        for info in engine.inputs
        for axis, (dim, size) in enumerate(zip(stated.get(info.name, ()), info.shape, strict=False))
        if isinstance(size, int) and not isinstance(dim, int)
    }
    if not fixed:
        return None
    made = {}
    for name, array in feed.items():
        places = [_place(name, axis, dim) for axis, dim in enumerate(stated.get(name, ()))]
        # An odd one, since what divides may be a number of the model.
        sizes = [
            2 * fixed[place] + 1 if place in fixed else size
            for place, size in zip(places, array.shape, strict=False)
        ]
        made[name] = np.resize(array, sizes)
    return made


def _place(name: str, axis: int, dim: object) -> object:
    """What has one size: a dimension of a name, else an axis of an input."""
    return dim if isinstance(dim, str) else (name, axis)


def with_float_masks(feed: Arrays) -> Arrays | None:
    """The samples with zeros and ones in the floats that may be masks: those of fewer axes than another
    input, or beside ids. As a mask, normal floats may keep nothing. None where there are none."""
    most = max(array.ndim for array in feed.values())
    ids = any(array.dtype.kind in "iu" for array in feed.values())
    masks = {
        name: _mixed(np.ones(array.shape, np.int64)).astype(array.dtype)
        for name, array in feed.items()
        if array.dtype.kind == "f" and array.ndim >= 2 and (array.ndim < most or ids)
    }
    return {**feed, **masks} if masks else None


def _mixed(array: Array) -> Array:
    """Integers and truths that are all one, which may be a mask, with zeros among them.

    A mask may keep what is one or what is not; each row has both, since a row of which nothing is kept means
    nothing.
    """
    if array.dtype.kind not in "iub" or not array.ndim or array.shape[-1] < 2 or not (array == 1).all():
        return array
    mixed = np.where(np.random.default_rng(1).random(array.shape) < 0.3, np.zeros_like(array), array)
    mixed[..., 0], mixed[..., -1] = 1, 0
    return mixed
