"""The benchmark of masks, on shapes that take no time."""

from __future__ import annotations

import pytest
import torch

from benchmarks import masks
from openwork.sparsity import Pattern


def test_times_masks_whose_zeros_it_has_checked() -> None:
    stacks = [torch.rand(9, 64, 32), torch.rand(1, 128, 64)]
    for text in masks.PATTERNS:
        assert masks.seconds(stacks, Pattern.parse(text), 0.5, repeats=1) >= 0.0


def test_refuses_masks_with_other_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        masks, "mask_at", lambda stack, pattern, zeros: torch.ones_like(stack, dtype=torch.bool)
    )
    with pytest.raises(RuntimeError, match=r"2:4 at 1 has 0\.0000 zeros"):
        masks.seconds([torch.rand(1, 4, 4)], Pattern.parse("2:4"), 1.0, repeats=1)


def test_listed_blocks_reach_their_optimum() -> None:
    # The solver's tolerance, 1e-7 of sums above 1, and float32 sums of eight numbers.
    assert min(masks.shares(2, 4, 4)) >= 1 - 1e-5
    assert 0.9 < min(masks.shares(2, 8, 4)) <= 1 + 1e-5
