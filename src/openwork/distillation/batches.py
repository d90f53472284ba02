"""An endless, reproducible order of batches of texts of similar length."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

# Batches that are sorted by length together: enough to leave little padding,
# few enough to keep every batch mixed.
_POOL = 32


def padded_batch(texts: Sequence[Sequence[int]], padding: int = 0) -> tuple[Tensor, Tensor]:
    """input_ids and attention_mask, i64[B, L], of token sequences, padded on the right to the longest."""
    longest = max(len(text) for text in texts)
    ids = torch.tensor([[*text, *[padding] * (longest - len(text))] for text in texts])
    lengths = torch.tensor([len(text) for text in texts])
    return ids, (torch.arange(longest)[None, :] < lengths[:, None]).long()


class TokenBatches:
    """Batch number `i` of an endless stream over `texts`, a function of the seed and of `i` alone.

    Each epoch visits the texts in a new order; runs of 32 batches are sorted by length, so that a batch holds
    little padding, and then taken in random order. texts: token ids without padding, each at least one.
    batch_size: texts in a batch.
    """

    def __init__(self, texts: Sequence[Sequence[int]], batch_size: int, seed: int = 0) -> None:
        if not texts:
            raise ValueError("There is no text to train on; give at least one tokenized text.")
        empty = next((i for i, text in enumerate(texts) if len(text) == 0), None)
        if empty is not None:
            raise ValueError(f"Text {empty} has no tokens; leave empty texts out.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but it is {batch_size}.")
        self._texts, self._seed = texts, seed
        self._size = min(batch_size, len(texts))
        self._epoch, self._order = -1, list[list[int]]()

    @property
    def per_epoch(self) -> int:
        """Full batches in an epoch; what is left over waits for a later epoch's order."""
        return len(self._texts) // self._size

    def digest(self) -> str:
        """A short fingerprint of texts, batch size and seed."""
        state = hashlib.blake2b(f"{self._size} {self._seed}".encode(), digest_size=16)
        for text in self._texts:
            state.update(array("q", [len(text), *text]).tobytes())
        return state.hexdigest()

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """input_ids and attention_mask of batch `number`, counted from 0 through all epochs."""
        epoch, position = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._arrange(epoch)
        return padded_batch([self._texts[i] for i in self._order[position]])

    def _arrange(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._texts), generator=generator).tolist()[: self.per_epoch * self._size]
        batches = []
        for start in range(0, len(order), _POOL * self._size):
            pool = sorted(order[start : start + _POOL * self._size], key=lambda i: len(self._texts[i]))
            batches += [pool[i : i + self._size] for i in range(0, len(pool), self._size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
