"""The demo's small parts: the work folder and the batches of texts."""

from pathlib import Path

import numpy as np
import pytest
from examples.minilm_search import texts
from examples.minilm_search.store import Store

from openwork.models import load_tokenizer


def test_a_file_is_made_once_per_key(tmp_path: Path) -> None:
    made: list[str] = []

    def make(path: Path) -> None:
        made.append(path.name)
        path.write_text(str(len(made)), encoding="utf-8")

    assert Store(tmp_path).file("a.txt", {"minutes": 5}, make).read_text(encoding="utf-8") == "1"
    assert Store(tmp_path).file("a.txt", {"minutes": 5}, make).read_text(encoding="utf-8") == "1"
    assert Store(tmp_path).file("a.txt", {"minutes": 6}, make).read_text(encoding="utf-8") == "2"
    (tmp_path / "a.txt").unlink()
    assert Store(tmp_path).file("a.txt", {"minutes": 6}, make).read_text(encoding="utf-8") == "3"


def test_a_failed_stage_leaves_no_file_and_no_key(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        Store(tmp_path).file("a.txt", {}, fail)
    assert list(tmp_path.iterdir()) == []


WORDS = ["one", "a much longer text with many more words in it", "two words", "three words here", ""]


def test_batches_hold_every_text_once_in_order_of_length() -> None:
    tokenizer = load_tokenizer(max_length=16)
    made = list(texts.batches(tokenizer, WORDS, size=2))
    assert sorted(np.concatenate([batch.positions for batch in made])) == list(range(len(WORDS)))
    lengths = [batch.attention_mask.sum(axis=1).max() for batch in made]
    assert lengths == sorted(lengths)
    for batch in made:
        assert batch.input_ids.shape == batch.attention_mask.shape
        assert batch.input_ids.shape[1] == batch.attention_mask.sum(axis=1).max()


def test_embeddings_come_back_in_the_order_of_the_texts() -> None:
    tokenizer = load_tokenizer(max_length=16)
    data = list(texts.batches(tokenizer, WORDS, size=2))

    def run(input_ids: texts.IntArray, attention_mask: texts.IntArray) -> texts.FloatArray:
        return attention_mask.sum(axis=1, keepdims=True).astype(np.float32)

    told: list[int] = []
    made = texts.embed(run, data, told.append)
    assert made[:, 0].tolist() == [len(ids) for ids in texts.token_ids(tokenizer, WORDS)]
    assert told == [1, 2, 3]


def test_exact_shapes_are_cut_from_long_texts_with_the_closing_token() -> None:
    tokenizer = load_tokenizer(max_length=16)
    ids, mask = texts.exact_shape(tokenizer, WORDS, 1, 6)
    full = texts.token_ids(tokenizer, WORDS)[1]
    assert ids.tolist() == [[*full[:5], full[-1]]]
    assert mask.tolist() == [[1] * 6]
    with pytest.raises(ValueError, match="only 1 texts of 6 tokens or more; 2 are needed"):
        texts.exact_shape(tokenizer, WORDS, 2, 6)


def test_tokenizing_without_padding_leaves_the_padding_as_it_was() -> None:
    tokenizer = load_tokenizer(max_length=16)
    texts.token_ids(tokenizer, WORDS)
    assert len({len(item.ids) for item in tokenizer.encode_batch(WORDS)}) == 1
