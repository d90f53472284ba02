"""How images get noise and lose it again: the cosine schedule and the deterministic sampler (DDIM).

Everything is NumPy, so that whoever predicts the noise, a torch module or an engine, is a function of arrays.
Sources: Nichol and Dhariwal 2021, "Improved denoising diffusion probabilistic models"; Song et al. 2021,
"Denoising diffusion implicit models".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Predictor = Callable[[Floats, NDArray[np.int64]], Floats]
"""The noise in images [B, C, H, W] that have so many steps of it, i64 [B]."""

_OFFSET = 0.008
_MOST_NOISE = 0.999


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of an image is left after each step of noise.

    steps : how many there are; after the last one nearly nothing of the image is left.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"a schedule has at least two steps, but this one has {self.steps}.")

    @property
    def kept(self) -> NDArray[np.float64]:
        """The part of the image's variance that is left after each step, [steps], falling."""
        at = np.arange(self.steps + 1) / self.steps
        curve = np.cos((at + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
        kept: NDArray[np.float64] = np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], _MOST_NOISE))
        return kept

    def noised(self, images: Floats, noise: Floats, times: NDArray[np.int64]) -> Floats:
        """Images [B, C, H, W] with the noise of so many steps, [B], from 0 to steps - 1."""
        kept = self.kept[times].reshape(-1, 1, 1, 1)
        return (np.sqrt(kept) * images + np.sqrt(1 - kept) * noise).astype(np.float32)

    def sampled(self, count: int) -> NDArray[np.int64]:
        """`count` times from the last one down, evenly spaced.

        Raises:
            ValueError: Where there are not as many steps.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(
                f"images are made in 1 to {self.steps} steps, as many as have noise, not in {count}."
            )
        times: NDArray[np.int64] = np.linspace(self.steps - 1, 0, count).round().astype(np.int64)
        return times


def ddim_steps(
    predict: Predictor, noise: Floats, count: int, schedule: NoiseSchedule, bound: float = 1.0
) -> Iterator[Floats]:
    """Yield the images [B, C, H, W] after each of `count` steps that begin at pure noise; the last are clear.

    bound : no number of a clear image lies beyond it.
    """
    images, kept, times = noise, schedule.kept, schedule.sampled(count)
    for place, time in enumerate(times):
        now = kept[time]
        then = kept[times[place + 1]] if place + 1 < count else 1.0
        found = predict(images, np.full(len(images), time, np.int64))
        clear = (images - math.sqrt(1 - now) * found) / math.sqrt(now)
        clear = np.clip(clear, -bound, bound)
        rest = (images - math.sqrt(now) * clear) / math.sqrt(1 - now)
        images = (math.sqrt(then) * clear + math.sqrt(1 - then) * rest).astype(np.float32)
        yield images
