"""BF16 in NumPy: the bits of torch's."""

from __future__ import annotations

import numpy as np
import torch

from openwork.support import bf16

CORNERS = np.array(
    [
        0x3F808000,
        0x3F818000,
        0x3F807FFF,
        0x3F808001,
        0x7F7F7FFF,
        0x7F7F8000,
        0x00000001,
        0x00008000,
        0x80000001,
    ],
    np.uint32,
).view(np.float32)
"""Ties to either side, their neighbours, the largest that stays finite, the next one, and tiny ones."""


def drawn() -> np.ndarray:
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32).view(np.float32)
    specials = np.array([0, -0.0, np.inf, -np.inf], np.float32)
    return np.concatenate([bits[~np.isnan(bits)], CORNERS, specials])


def test_rounding_has_the_bits_of_torch() -> None:
    numbers = drawn()
    wanted = torch.from_numpy(numbers).to(torch.bfloat16)
    np.testing.assert_array_equal(bf16.rounded(numbers), wanted.view(torch.uint16).numpy())
    np.testing.assert_array_equal(bf16.widened(bf16.rounded(numbers)), wanted.float().numpy())


def test_nan_stays_nan() -> None:
    numbers = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(bf16.widened(bf16.rounded(numbers))).all()


def test_what_rounding_moves_is_at_most_the_unit_roundoff() -> None:
    numbers = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    moved = np.abs(bf16.widened(bf16.rounded(numbers)).astype(np.float64) - numbers)
    assert (moved <= bf16.UNIT_ROUNDOFF * np.abs(numbers)).all()
    assert moved.max() > 0


def test_zero_weights_are_zero_bits_and_too_large_ones_are_refused() -> None:
    weights = np.array([[-0.0, 0.0, -1e-45, 1.5]], np.float32)
    np.testing.assert_array_equal(bf16.weights(weights), np.array([[0, 0, 0, 0x3FC0]], np.uint16))
    assert bf16.weights(np.array([3.4e38], np.float32)) is None
