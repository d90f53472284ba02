"""What a call of each runner takes, in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from openwork.bench.latency import Options, Timing, measure

from .engines import BATCHES, Call, example_inputs
from .settings import UNETS


def _calls(runners: Mapping[str, Call], size: str, batch: int) -> dict[str, Callable[[], object]]:
    inputs = example_inputs(UNETS[size], batch)
    images, steps, text = (inputs[name].numpy() for name in ("images", "times", "text"))
    return {name: partial(call, images, steps, text) for name, call in runners.items()}


def times(runners: Mapping[str, Call], size: str, seconds: float) -> dict[int, dict[str, Timing]]:
    """The timings of every runner for each batch of BATCHES, in milliseconds."""
    options = Options(warm_up=0.3, duration=seconds, turn=min(0.2, seconds / 4), minimum_rounds=5)
    return {batch: measure(_calls(runners, size, batch), options) for batch in BATCHES}
