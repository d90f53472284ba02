"""Affine quantization against the exact rational arithmetic and against torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.quantization.affine import (
    Affine,
    choose_affine,
    dequantize,
    dequantize_weight,
    quantize,
    quantize_weight,
    weight_scales,
)


def _values(seed: int, count: int = 4096) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * 3).astype(np.float32)


@pytest.mark.parametrize("dtype", ["s8", "u8"])
@pytest.mark.parametrize("seed", range(4))
def test_quantize_gives_the_integers_of_torch(dtype: str, seed: int) -> None:
    x = _values(seed)
    affine = choose_affine(float(x.min()) * 0.7, float(x.max()) * 0.7, dtype)  # type: ignore[arg-type]
    low, high = affine.limits
    expected = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(x), affine.scale, affine.zero_point, low, high
    )
    got = dequantize(quantize(x, affine), affine)
    assert np.array_equal(got, expected.numpy())
    assert quantize(x, affine).min() == low or dtype == "u8"


def test_rounding_is_to_even_and_saturates_and_sends_nan_to_the_lower_end() -> None:
    x = np.array([0.5, 1.5, -0.5, -1.5, 300, -300, np.nan, np.inf], np.float32)
    assert quantize(x, Affine(1.0, 0, "s8")).tolist() == [0, 2, 0, -2, 127, -128, -128, 127]
    assert quantize(x, Affine(1.0, 10, "u8")).tolist() == [10, 12, 10, 8, 255, 0, 0, 255]


@given(
    st.floats(-1e6, 1e6, width=32),
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from(["s8", "u8"]),
    st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_what_lies_in_the_range_returns_within_one_step(a: float, b: float, dtype: str, part: float) -> None:
    low, high = min(a, b), max(a, b)
    affine = choose_affine(low, high, dtype)  # type: ignore[arg-type]
    x = np.float32(low + part * (high - low))
    # Half a step of rounding, half a step of the zero point's own rounding, and binary32's on values of |x|.
    error = abs(float(dequantize(quantize(x[None], affine), affine)[0]) - float(x))
    assert error <= affine.scale * 1.001 + 1e-6 * abs(float(x))
    assert dequantize(quantize(np.zeros(1, np.float32), affine), affine)[0] == 0


def test_a_range_is_chosen_as_documented() -> None:
    assert choose_affine(-1.27, 0.5, "s8") == Affine(float(np.float32(0.01)), 0, "s8")
    assert choose_affine(-1.0, 1.55, "u8") == Affine(float(np.float32(0.01)), 100, "u8")
    assert choose_affine(2.0, 2.55, "u8").zero_point == 0
    assert choose_affine(0.0, 0.0, "u8") == Affine(1.0, 0, "u8")


def test_weights_are_quantized_per_channel_and_zeros_stay() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
    weight[:, ::2] = 0
    weight[3] = 0
    scales = weight_scales(weight, "layer")
    q = quantize_weight(weight, scales)
    assert scales[3] == 1
    assert not q[3].any()
    assert not q[:, ::2].any()
    assert np.abs(q[[0, 1, 2, 4]]).max(axis=1).tolist() == [127] * 4
    # Half a step, and the two roundings of the reciprocal and the product.
    assert (np.abs(dequantize_weight(q, scales) - weight) <= scales[:, None] * (0.5 + 127 * 2e-7)).all()


def test_a_channel_too_small_for_a_scale_counts_as_zero() -> None:
    weight = np.full((1, 4), 1e-42, np.float32)
    assert weight_scales(weight, "layer").tolist() == [1.0]
    assert not quantize_weight(weight, weight_scales(weight, "layer")).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_channel(bad: float) -> None:
    weight = np.ones((4, 3), np.float32)
    weight[2, 1] = bad
    with pytest.raises(
        ValueError, match=r"query: output channel 2 of the weight holds NaN or infinity \(1 of 4"
    ):
        weight_scales(weight, "query")
    with pytest.raises(ValueError, match="must be finite and in order"):
        choose_affine(-1.0, abs(bad), "u8")


@pytest.mark.parametrize(
    ("scale", "zero_point", "dtype", "words"),
    [
        (0.0, 0, "s8", "positive normal binary32"),
        (float("nan"), 0, "s8", "positive normal binary32"),
        (0.1, 0, "s8", "positive normal binary32"),
        (1.0, 256, "u8", "lies in 0 to 255"),
        (1.0, 0, "s4", "not to 's4'"),
    ],
)
def test_an_odd_affine_map_is_refused(scale: float, zero_point: int, dtype: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Affine(scale, zero_point, dtype)  # type: ignore[arg-type]


def test_the_arithmetic_needs_no_torch() -> None:
    code = "import sys; import openwork.quantization.affine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
