"""Ways to hand a batch of texts of many lengths to an engine, none of which sorts beyond the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from examples.minilm_search.settings import MAXIMUM_LENGTH
from examples.minilm_search.texts import FloatArray, IntArray, Run

Tokens = Sequence[Sequence[int]]


def padded(batch: Tokens, length: int | None = None) -> tuple[IntArray, IntArray]:
    """input_ids and attention_mask, i64 [texts, length]; by default as long as the longest text."""
    width = length or max(map(len, batch))
    ids, mask = np.zeros((2, len(batch), width), np.int64)
    for row, text in enumerate(batch):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask


def longest(run: Run, batch: Tokens) -> FloatArray:
    """All at once, padded to the longest of the batch."""
    return np.array(run(*padded(batch)))


def fixed(run: Run, batch: Tokens) -> FloatArray:
    """All at once, padded to the longest text that the model is asked to read."""
    return np.array(run(*padded(batch, MAXIMUM_LENGTH)))


def alone(run: Run, batch: Tokens) -> FloatArray:
    """One text after the other, without padding."""
    return np.concatenate([np.array(run(*padded([text]))) for text in batch])


def grouped(parts: int) -> Callable[[Run, Tokens], FloatArray]:
    """The batch in so many parts of like length, each padded to its longest."""

    def call(run: Run, batch: Tokens) -> FloatArray:
        order = np.argsort([len(text) for text in batch], kind="stable")
        made: list[FloatArray] = [np.empty(0, np.float32)] * len(batch)
        for part in np.array_split(order, parts):
            for place, row in zip(part, np.array(run(*padded([batch[i] for i in part]))), strict=True):
                made[int(place)] = row
        return np.stack(made)

    return call


PADDINGS: dict[str, Callable[[Run, Tokens], FloatArray]] = {
    "to the longest": longest,
    f"to {MAXIMUM_LENGTH}": fixed,
    "each text alone": alone,
    "two groups by length": grouped(2),
    "four groups by length": grouped(4),
}
