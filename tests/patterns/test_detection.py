"""The pattern that a weight's zeros follow: what was pruned is found again, rounding and accidents aside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openwork.sparsity import BlockPattern, GroupPattern, Pattern, detect, magnitude_mask


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


SHORT = ("1:2", "2:4", "1:4", "3:4", "4:8", "2:8", "1:8", "4:16", "5:16", "9:16", "8:32", "16:32", "4:64")
LONG = ("16:64", "32:64", "40:64", "64:128", "128:256", "16:256")
SHARED = ("1:4@2", "2:4@2", "2:4@4", "4:8@64", "8:32@16", "32:64@32", "64:128@128")


@pytest.mark.parametrize("text", [*SHORT, *LONG, *SHARED, "100:128", "3:256"])
def test_any_n_of_m_is_found_by_its_own_name(text: str) -> None:
    assert str(detect(pruned(text, rows=256, columns=768))) == text


@pytest.mark.parametrize("text", [*SHORT, *LONG, *SHARED])
def test_rounding_to_zero_takes_no_name_away(text: str) -> None:
    weight = pruned(text, rows=256, columns=768)
    weight[np.random.default_rng(1).random(weight.shape) < 0.1] = 0
    assert str(detect(weight)) == text


@pytest.mark.parametrize(
    ("text", "shape"), [("2:4@4", (30, 100)), ("32:64", (7, 1000)), ("4:16", (100, 777))]
)
def test_what_is_cut_short_is_found_as_well(text: str, shape: tuple[int, int]) -> None:
    found = detect(pruned(text, *shape))
    assert found is not None
    assert found.density == Pattern.parse(text).density
    assert Pattern.parse(text).holds(pruned(text, *shape))
    assert str(found) == text


@pytest.mark.parametrize("seed", range(200))
def test_zeros_that_follow_nothing_are_no_groups(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 200), generator.integers(1, 400)
    weight = (generator.random(shape) < generator.random()).astype(np.int8)
    found = detect(weight)
    assert not isinstance(found, GroupPattern) or not weight.any(), f"seed {seed}: {found}"


def test_the_zeros_of_a_dense_weight_are_no_pattern() -> None:
    generator = np.random.default_rng(5)
    for spread in (1.5, 5, 40):
        weight = np.clip(np.rint(generator.standard_normal((256, 768)) * spread), -127, 127).astype(np.int8)
        assert detect(weight) is None
        assert (weight == 0).any()


def test_what_the_metadata_says_is_tried_first() -> None:
    weight = pruned("2:4")
    for text in ("4:8", "2:4", "32:64", "1x1:0.4", "2:4t"):
        stated = Pattern.parse(text)
        assert detect(weight, stated) == (stated if stated.holds(weight) else Pattern.parse("2:4"))
    assert str(detect(weight, Pattern.parse("1:4"))) == "2:4"
    assert str(detect(weight, Pattern.parse("4:8"))) == "4:8"
    assert detect(np.ones((8, 8), np.int8), Pattern.parse("2:4")) is None


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
    assert str(detect(np.zeros((8, 128), np.int8))) == "1:128@4"
    assert str(detect(np.zeros((3, 3), np.int8))) == "1:2@2"
    assert detect(np.zeros((3, 1), np.int8)) is None
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
