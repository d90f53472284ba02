"""The pattern that a weight's zeros follow: what was pruned is found again, rounding and accidents aside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openwork.sparsity import BlockPattern, Pattern, detect, magnitude_mask


def pruned(text: str, rows: int = 64, columns: int = 192, seed: int = 0) -> np.ndarray:
    """A random s8 weight, none of it zero but what the pattern's mask drops."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mask = magnitude_mask(weight, Pattern.parse(text))
    values = np.random.default_rng(seed).integers(1, 128, weight.shape) * np.sign(weight.numpy())
    return (values * mask.numpy()).astype(np.int8)


@pytest.mark.parametrize(
    "text",
    [
        "4x16:0.85",
        "4x4:0.75",
        "1x4:0.75",
        "1x16:0.5",
        "4x1:0.8",
        "2x1:0.7",
        "1x2:0.6",
        "1x1:0.9",
        "1x1:0.87",
        "1x1:0.5",
        "2:4@2",
        "2:4@4",
        "4:16@4",
    ],
)
def test_what_was_pruned_is_found(text: str) -> None:
    assert str(detect(pruned(text))) == text


@pytest.mark.parametrize(("text", "found"), [("3:4", "None"), ("1:8", "4:32"), ("5:16", "1x1:0.68")])
def test_other_patterns_are_found_as_what_holds_them(text: str, found: str) -> None:
    assert str(detect(pruned(text))) == found


def test_the_fraction_of_few_blocks_is_rounded_to_what_holds() -> None:
    weight = np.zeros((3, 1), np.int8)
    weight[1] = 7
    found = detect(weight)
    assert str(found) == "1x1:0.67"
    assert found is not None
    assert found.holds(weight)


@pytest.mark.parametrize("text", ["2:4", "4:16@2", "4x1:0.75", "4x16:0.75", "1x4:0.5"])
def test_a_few_more_zeros_change_no_pattern(text: str) -> None:
    weight = pruned(text)
    weight[np.random.default_rng(1).random(weight.shape) < 0.1] = 0
    assert str(detect(weight)) == text


def test_more_zeros_than_the_pattern_says_are_unstructured() -> None:
    weight = pruned("2:4")
    weight[np.random.default_rng(1).random(weight.shape) < 0.5] = 0
    found = detect(weight)
    assert isinstance(found, BlockPattern)
    assert (found.rows, found.columns) == (1, 1)
    assert found.fraction == pytest.approx(0.75, abs=0.02)


def test_a_layer_of_zeros_and_one_of_nearly_nothing_else() -> None:
    assert str(detect(np.zeros((8, 128), np.int8))) == "4:64@4"
    assert detect(np.zeros((3, 3), np.int8)) is None
    weight = np.zeros((64, 192), np.int8)
    weight[3, 5] = 1
    assert str(detect(weight)) == "1x1:0.99"


@given(st.integers(1, 9), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_what_is_found_holds_and_half_zeros_are_always_found(
    rows: int, columns: int, density: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.integers(1, 9, (rows, columns)) * (generator.random((rows, columns)) < density)
    found = detect(weight)
    assert found is None or found.holds(weight)
    if np.count_nonzero(weight):
        assert (found is not None) >= (np.count_nonzero(weight) <= weight.size / 2)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 4), (0, 4)])
def test_only_matrices_are_looked_at(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be a non-empty matrix"):
        detect(np.zeros(shape))
