"""Scikit-learn's 8x8 digits, split once for all, and an endless reproducible order of augmented batches.

The test part is used for the figures in the tables alone; recipes are chosen on the validation part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

TEST_IMAGES, VALIDATION_IMAGES = 597, 200
SPLIT_SEED = 0
_SIZE = 8


class Part(NamedTuple):
    """Images, f32 [N, 1, 8, 8] of mean 0 and deviation 1 over the training part, and labels, i64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Digits:
    """The three parts. background: what an empty pixel is after the normalization."""

    train: Part
    validation: Part
    test: Part
    background: float


def load() -> Digits:
    """The digits in their fixed, stratified split: 1,000 to train, 200 to choose a recipe, 597 to test."""
    bunch = load_digits()
    labels = np.asarray(bunch.target)
    rest, test = _split(np.arange(len(labels)), labels, TEST_IMAGES)
    train, validation = _split(rest, labels, VALIDATION_IMAGES)
    images = torch.tensor(np.asarray(bunch.images), dtype=torch.float32)[:, None]
    mean, deviation = images[train].mean(), images[train].std()
    images = (images - mean) / deviation

    def part(chosen: np.ndarray) -> Part:
        return Part(images[chosen], torch.tensor(labels[chosen]))

    return Digits(part(train), part(validation), part(test), float(-mean / deviation))


def _split(indices: np.ndarray, labels: np.ndarray, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    kept, held = train_test_split(
        indices, test_size=held_out, random_state=SPLIT_SEED, stratify=labels[indices]
    )
    return kept, held


class Batches:
    """Batch number `i` of an endless stream, a function of the seed and of `i` alone.

    Each epoch visits the images in a new order; what is left over at its end waits for another epoch. Every
    image is shifted by up to one pixel each way.
    """

    def __init__(self, digits: Digits, size: int, seed: int) -> None:
        if not 1 <= size <= len(digits.train):
            raise ValueError(f"A batch has 1 to {len(digits.train)} images, but {size} were asked for.")
        self._part, self._background = digits.train, digits.background
        self._size, self._seed = size, seed

    def __getitem__(self, number: int) -> Part:
        epoch, position = divmod(number, len(self._part) // self._size)
        order = torch.randperm(len(self._part), generator=_generator(self._seed, 0, epoch))
        chosen = order[position * self._size : (position + 1) * self._size]
        images = shifted(self._part.images[chosen], self._background, _generator(self._seed, 1, number))
        return Part(images, self._part.labels[chosen])


def shifted(images: Tensor, background: float, generator: torch.Generator) -> Tensor:
    """Images f32 [N, 1, 8, 8], each moved by -1, 0 or 1 pixels down and across, filled with `background`."""
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), value=background)
    offsets = torch.randint(0, 3, (len(images), 2), generator=generator)
    rows = (offsets[:, :1] + torch.arange(_SIZE))[:, :, None]
    columns = (offsets[:, 1:] + torch.arange(_SIZE))[:, None, :]
    return padded[torch.arange(len(images))[:, None, None], 0, rows, columns][:, None]


def _generator(seed: int, stream: int, number: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, stream, number)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
