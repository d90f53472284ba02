"""The bitmap form: a bit-level example, round trips, every altered bit, and every refusal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.patterns.bitmap import Bitmap, check, compress, decompress
from openwork.patterns.pattern import GroupPattern, Pattern
from openwork.patterns.stored import arrays, assemble, dense, names, store


def sparse(rng: np.random.Generator, n: int, k: int, density: float) -> np.ndarray:
    return (rng.integers(-128, 128, (n, k)) * (rng.random((n, k)) < density)).astype(np.int8)


def test_bytes_of_a_known_weight() -> None:
    found = compress(np.array([[0, 5, 0, -7, 0, 0, 0, 0, 0, 9], [1, 0, 0, 0, 0, 0, 0, 2, 0, 0]], np.int8))
    assert found.bits.tolist() == [[0b00001010, 0b10], [0b10000001, 0]]
    assert found.values.tolist() == [5, -7, 9, 1, 2]
    assert (found.k, found.nbytes) == (10, 9)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 70), st.floats(0, 1))
def test_round_trip(seed: int, n: int, k: int, density: float) -> None:
    weight = sparse(np.random.default_rng(seed), n, k, density)
    found = compress(weight)
    check(found)
    np.testing.assert_array_equal(decompress(found), weight)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**20))
def test_every_altered_bit_is_refused(seed: int, bit: int) -> None:
    found = compress(sparse(np.random.default_rng(seed), 3, 26, 0.4))
    bits = found.bits.copy()
    bits.reshape(-1)[bit // 8 % bits.size] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="bits set"):
        check(replace(found, bits=bits))


TYPES = r"has uint8 bits \[n, bytes\] and int8, uint16 \(BF16\) or float32 values"
GOOD = compress(np.array([[0, 3, 0], [4, 0, 0]], np.int8))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replace(GOOD, values=GOOD.values[:1]), "has 2 bits set and so as many values, but there are 1"),
        (
            replace(GOOD, values=np.zeros(2, np.int8)),
            "a zero among its values, at 0; a zero weight",
        ),
        (replace(GOOD, bits=np.array([[8], [1]], np.uint8)), "bits set beyond its 3 input channels"),
        (replace(GOOD, k=9), r"9 input channels has bits \[n, 2\], .* they are \[2, 1\]"),
        (replace(GOOD, k=0), r"0 input channels has bits \[n, 0\]"),
        (replace(GOOD, bits=GOOD.bits[:0], values=GOOD.values[:0]), r"at least 1, but they are \[0, 1\]"),
        (
            replace(GOOD, bits=GOOD.bits.reshape(-1)),
            r"has uint8 bits \[n, bytes\] and int8, uint16 \(BF16\) or float32 values",
        ),
        (
            replace(GOOD, values=GOOD.values.reshape(2, 1)),
            r"has uint8 bits \[n, bytes\] and int8, uint16 \(BF16\) or float32 values",
        ),
        (
            replace(GOOD, values=GOOD.values.astype(np.int16)),
            r"has uint8 bits \[n, bytes\] and int8, uint16 \(BF16\) or float32 values",
        ),
    ],
)
def test_other_than_the_canonical_form_is_refused(broken: Bitmap, message: str) -> None:
    for refuse in (check, decompress):
        with pytest.raises(ValueError, match=message):
            refuse(broken)


@pytest.mark.parametrize("weight", [np.zeros((2, 8)), np.zeros(8, np.int8), np.zeros((0, 8), np.int8)])
def test_other_weights_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"compressed from a non-empty int8, uint16 \(BF16\) or float32"):
        compress(weight)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
@pytest.mark.parametrize("text", [None, "2:4", "2:4@2", "4:8", "10:20", "4x1:0.5", "1x1:0.5"])
def test_engines_take_weights_apart_and_together(text: str | None, dtype: type) -> None:
    weight = np.tile(np.array([1, 0, 0, 2], dtype), (4, 5))
    pattern = None if text is None else Pattern.parse(text)
    parts = arrays("w", store(weight, pattern))
    assert tuple(parts) == names("w", pattern)
    found = dense(assemble(parts, "w", pattern, 20))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, weight)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *((text, "indices") for text in ("1:2", "2:4", "4:16", "4:64", "8:256")),
        *((text, "bitmap") for text in ("4:8", "16:64", "32:64", "4:512", "1x1:0.9")),
    ],
)
def test_the_smaller_form_is_stored(text: str, kind: str) -> None:
    pattern = Pattern.parse(text)
    assert names("w", pattern) == ("w.values", f"w.{kind}")
    weight = np.zeros((16, 1024), np.int8)
    if isinstance(pattern, GroupPattern):
        weight.reshape(16, -1, pattern.group)[:, :, : pattern.kept] = 1
        chosen, bits = store(weight, pattern), compress(weight)
        assert chosen.nbytes <= bits.nbytes
