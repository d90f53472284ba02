"""The canonical compressed form: a bit-level example, round trips, and every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.patterns import compressed
from openwork.patterns.compressed import Compressed, check, compress, decompress, shapes


def sparse_weight(rng: np.random.Generator, n: int, k: int, kept: int, group: int) -> np.ndarray:
    """A random s8 [n, k] that keeps at most `kept` of every `group`, often fewer."""
    weight = np.zeros((n, k), np.int8)
    for row in range(n):
        for start in range(0, k, group):
            size = min(group, k - start)
            places = rng.permutation(size)[: rng.integers(0, kept + 1)]
            weight[row, start + places] = rng.integers(-127, 128, len(places))
    return weight


def test_bytes_of_a_known_weight() -> None:
    weight = np.array([[0, 5, 0, -7, 0, 0, 0, 9, 3, 0]], np.int8)
    packed = compress(weight, 2, 4)
    # Groups: positions 1, 3 | 0 (filled up), 3 | 0, 1 (filled up); two bits each from the lowest bit upwards.
    assert packed.values.tolist() == [[5, -7, 0, 9, 3, 0]]
    assert packed.indices.tolist() == [[0b11_00_11_01, 0b01_00]]
    assert packed.nbytes == 8


def test_every_row_starts_on_a_new_byte() -> None:
    weight = np.array([[0, 0, 1], [0, 2, 0]], np.int8)
    packed = compress(weight, 1, 3)
    assert packed.indices.tolist() == [[2], [1]]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    k=st.integers(1, 140),
    group=st.sampled_from([2, 3, 4, 5, 8, 16, 31, 32, 64, 100, 128, 256]),
    dtype=st.sampled_from([np.int8, np.float32]),
    data=st.data(),
)
def test_round_trip(seed: int, n: int, k: int, group: int, dtype: type, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, group - 1))
    weight = sparse_weight(np.random.default_rng(seed), n, k, kept, group).astype(dtype)
    packed = compress(weight, kept, group)
    assert packed.values.dtype == dtype
    assert (packed.values.shape, packed.indices.shape) == shapes(n, k, kept, group)
    check(packed)
    np.testing.assert_array_equal(decompress(packed), weight)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bit=st.integers(0, 2**20))
def test_every_altered_index_bit_is_refused_or_changes_the_weight(seed: int, bit: int) -> None:
    weight = sparse_weight(np.random.default_rng(seed), 3, 26, 2, 5)
    packed = compress(weight, 2, 5)
    indices = packed.indices.copy()
    indices.reshape(-1)[bit // 8 % indices.size] ^= 1 << bit % 8
    altered = replace(packed, indices=indices)
    try:
        check(altered)
    except ValueError:
        return
    assert not np.array_equal(decompress(altered), weight)


def test_many_rows_are_made_dense_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = sparse_weight(np.random.default_rng(1), 23, 70, 3, 8)
    monkeypatch.setattr(compressed, "_WEIGHTS_AT_ONCE", 300)
    packed = compress(weight, 3, 8)
    np.testing.assert_array_equal(decompress(packed), weight)
    indices = packed.indices.copy()
    indices[19] = 0
    with pytest.raises(ValueError, match="Row 19 of a 3:8 weight has positions that do not increase"):
        decompress(replace(packed, indices=indices))


def test_size_of_the_patterns() -> None:
    weight = np.zeros((64, 384), np.int8)
    assert compress(weight, 2, 4).nbytes == weight.nbytes * 5 // 8
    assert compress(weight, 4, 16).nbytes == weight.nbytes * 3 // 8


def test_a_broken_pattern_is_refused() -> None:
    weight = np.zeros((3, 8), np.int8)
    weight[1, 4:7] = 1
    with pytest.raises(
        ValueError, match=r"breaks 2:4: row 1, input channels 4 to 7, has 3 non-zero weights\."
    ):
        compress(weight, 2, 4)


@pytest.mark.parametrize(("kept", "group"), [(0, 4), (4, 4), (5, 4), (1, 1), (1, 257)])
def test_numbers_that_name_no_pattern_are_refused(kept: int, group: int) -> None:
    with pytest.raises(ValueError, match="keeps N of M"):
        compress(np.zeros((2, 8), np.int8), kept, group)


@pytest.mark.parametrize("weight", [np.zeros((2, 8)), np.zeros(8, np.int8), np.zeros((1, 2, 4), np.int8)])
def test_other_types_and_shapes_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"compressed from int8, uint16 \(BF16\) or float32"):
        compress(weight, 2, 4)


@pytest.mark.parametrize("shape", [(0, 8), (8, 0)])
def test_empty_weights_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one row and one column"):
        compress(np.zeros(shape, np.int8), 2, 4)


def one_group(values: list[int], index_byte: int, k: int = 4, kept: int = 2, group: int = 4) -> Compressed:
    return Compressed(np.array([values], np.int8), np.array([[index_byte]], np.uint8), kept, group, k)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (one_group([1, 2], 0b01_10), "positions that do not increase"),
        (one_group([1, 2], 0b01_01), "positions that do not increase"),
        (one_group([1, 2], 0b1_01_00), "bits set after the last position"),
        (one_group([1, 2], 0b11_01, k=3), "beyond its 3 input channels"),
        (one_group([1], 0b11, k=3, kept=1, group=3), "position 3 outside its group"),
        (one_group([1, 2, 3], 0b01_00), r"has values \[1, 2\] and indices \[1, 1\]"),
        (one_group([1, 0], 0b11_00), "fills a group up at other than its lowest free positions"),
    ],
)
def test_other_than_the_canonical_form_is_refused(packed: Compressed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(packed)
