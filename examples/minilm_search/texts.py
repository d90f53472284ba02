"""Texts to tokens to embeddings, in batches of similar length."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Run = Callable[[IntArray, IntArray], FloatArray]
"""input_ids and attention_mask, int64 [batch, length], to embeddings, float32 [batch, size]."""

BATCH_SIZE = 16


class Batch(NamedTuple):
    """Texts of similar length as the model takes them, and where they stood in the list they come from."""

    input_ids: IntArray
    attention_mask: IntArray
    positions: IntArray


def batches(tokenizer: Tokenizer, texts: Sequence[str], size: int = BATCH_SIZE) -> Iterator[Batch]:
    """All `texts` in batches, shortest first, so that there is little padding."""
    order = np.argsort([len(item.ids) for item in _unpadded(tokenizer, texts)], kind="stable")
    for start in range(0, len(order), size):
        positions = order[start : start + size]
        items = tokenizer.encode_batch([texts[i] for i in positions])
        ids = np.array([item.ids for item in items], np.int64)
        yield Batch(ids, np.array([item.attention_mask for item in items], np.int64), positions)


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, without padding."""
    return [item.ids for item in _unpadded(tokenizer, texts)]


def _unpadded(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    padding = tokenizer.padding
    tokenizer.no_padding()
    try:
        return tokenizer.encode_batch(list(texts))
    finally:
        if padding is not None:
            tokenizer.enable_padding(**padding)


def embed(run: Run, data: Sequence[Batch], told: Callable[[int], None] = lambda done: None) -> FloatArray:
    """The embeddings of all texts in `data`, in their first order; `told` hears how many batches are done."""
    parts = []
    for done, batch in enumerate(data, start=1):
        parts.append(np.array(run(batch.input_ids, batch.attention_mask)))
        told(done)
    made = np.concatenate(parts)
    result = np.empty_like(made)
    result[np.concatenate([batch.positions for batch in data])] = made
    return result


def exact_shape(
    tokenizer: Tokenizer, texts: Sequence[str], batch: int, length: int
) -> tuple[IntArray, IntArray]:
    """Real text at exactly batch x length tokens, for timing: long texts, cut, the closing token kept."""
    rows = [ids for ids in token_ids(tokenizer, texts) if len(ids) >= length][:batch]
    if len(rows) < batch:
        raise ValueError(
            f"The corpus has only {len(rows)} texts of {length} tokens or more; {batch} are needed."
        )
    ids = np.array([[*row[: length - 1], row[-1]] for row in rows], np.int64)
    return ids, np.ones_like(ids)
