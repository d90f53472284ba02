"""Observers: they watch one tensor over many batches and say which range of values to represent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from openwork.quantization.observers.base import Observer
from openwork.quantization.observers.counted import (
    EntropyObserver,
    HistogramObserver,
    MseObserver,
    PercentileObserver,
)
from openwork.quantization.observers.extremes import MaxObserver, MovingObserver
from openwork.quantization.observers.histogram import Histogram
from openwork.quantization.observers.percentile import DEFAULT_PERCENTILE
from openwork.quantization.observers.rows import RowObserver

ObserverKind = Literal["output", "max", "moving", "percentile", "entropy", "mse"]

__all__ = [
    "DEFAULT_PERCENTILE",
    "EntropyObserver",
    "Histogram",
    "HistogramObserver",
    "MaxObserver",
    "MovingObserver",
    "MseObserver",
    "Observer",
    "ObserverKind",
    "PercentileObserver",
    "RowObserver",
    "make_observer",
]


def make_observer(
    kind: ObserverKind,
    name: str,
    percentile: float = DEFAULT_PERCENTILE,
    symmetric: bool = True,
    axis: int | None = None,
) -> Observer:
    """The observer that `kind` names.

    name: the layer, for messages. percentile: of the values kept, for that kind. symmetric: choose the range
    of |x|, for signed integers without a zero point. axis: the channel axis of the tensor, None for one range
    of it all. Raises ValueError for another kind, and for "output" per channel.
    """
    if kind == "output" and axis is not None:
        raise ValueError(
            f'The observer "output" has one range for all channels, so it takes no axis ({name}).'
        )
    makers: dict[str, Callable[[], Observer]] = {
        "output": lambda: RowObserver(name),
        "max": lambda: MaxObserver(name, axis),
        "moving": lambda: MovingObserver(name, axis),
        "percentile": lambda: PercentileObserver(name, percentile, symmetric, axis),
        "entropy": lambda: EntropyObserver(name, symmetric, axis),
        "mse": lambda: MseObserver(name, symmetric, axis),
    }
    if kind not in makers:
        names = [f'"{one}"' for one in get_args(ObserverKind)]
        raise ValueError(f"An observer is {', '.join(names[:-1])} or {names[-1]}, but it is {kind!r}.")
    return makers[kind]()
