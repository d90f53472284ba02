"""BatchNorm's folding arithmetic against torch's normalization in binary64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from openwork.qdq.batch_norm import BatchNorm, along_outputs, scaled_integers

CHANNELS = 8


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def statistics(affine: bool) -> BatchNorm:
    gamma, beta = (numbers(seed, CHANNELS) if affine else None for seed in (1, 2))
    return BatchNorm(gamma, beta, numbers(3, CHANNELS), np.abs(numbers(4, CHANNELS)) + 0.1, 1e-3)


def normalized(norm: BatchNorm, x: torch.Tensor) -> torch.Tensor:
    given = (norm.mean, norm.variance, norm.gamma, norm.beta)
    mean, variance, gamma, beta = (None if a is None else torch.from_numpy(a) for a in given)
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=norm.epsilon)


LAYERS: list[tuple[Any, tuple[int, ...], bool, int]] = [
    (functional.conv2d, (CHANNELS, 4, 3, 3), False, 1),
    (functional.conv2d, (CHANNELS, 2, 3, 3), False, 2),
    (functional.conv_transpose2d, (4, CHANNELS, 3, 3), True, 1),
    (functional.conv_transpose2d, (4, CHANNELS // 2, 3, 3), True, 2),
]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("layer", "shape", "transposed", "groups"), LAYERS)
def test_a_folded_layer_is_the_layer_and_its_norm(
    layer: Any, shape: tuple[int, ...], transposed: bool, groups: int, biased: bool, affine: bool
) -> None:
    norm, x = statistics(affine), torch.from_numpy(numbers(5, 2, 4, 6, 6))
    weight, bias = numbers(6, *shape), numbers(7, CHANNELS) if biased else None
    exact = normalized(
        norm,
        layer(x, torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias), groups=groups),
    )
    folded = weight * along_outputs(norm.factor, shape, transposed, groups)
    moved = torch.from_numpy(norm.folded_bias(bias))
    made = layer(x, torch.from_numpy(folded), moved, groups=groups)
    # At most 36 products and a bias of magnitudes below 64 in a sum, each side rounding every one.
    torch.testing.assert_close(made, exact, rtol=0, atol=2 * 40 * 64 * 2.0**-53 * 40)


def test_integers_keep_their_numbers_and_change_their_signs() -> None:
    integers = np.array([[3, -127], [0, 5], [7, 1], [2, 2]], np.int8)
    factor = np.array([2.0, -0.5, 0.0, 1e-60])
    signed, scales = scaled_integers(integers, np.array([0.5, 1, 1, 1], np.float32), factor, 0)
    assert signed.tolist() == [[3, -127], [0, -5], [0, 0], [0, 0]]
    assert scales.tolist() == [1.0, 0.5, 1.0, 1.0]
    assert (signed.dtype, scales.dtype) == (np.int8, np.float32)


def test_one_scale_becomes_one_for_each_channel() -> None:
    integers = np.array([[1, 2, 3]], np.int8)
    signed, scales = scaled_integers(integers, np.float32(0.25), np.array([1.0, -2.0, 4.0]), 1)
    assert signed.tolist() == [[1, -2, 3]]
    assert scales.tolist() == [0.25, 0.5, 1.0]
