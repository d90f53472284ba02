"""Affine quantization against the exact rational arithmetic and against torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.qdq.affine import (
    Affine,
    choose_affine,
    choose_affines,
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
    code = "import sys; import openwork.qdq.affine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Properties, as docs/arithmetic.md lists them.

# Scales for which 255 steps are finite numbers, with all their bits in the reciprocal.
SCALES = st.floats(2.0**-126, 2.0**119, width=32)
MAPS = st.one_of(
    st.builds(Affine, SCALES, st.just(0), st.just("s8")),
    st.builds(Affine, SCALES, st.integers(0, 255), st.just("u8")),
)
# Every binary32 number but NaN: infinities and subnormal numbers too.
NUMBERS = st.floats(width=32, allow_nan=False)


@given(MAPS)
@settings(max_examples=100, deadline=None)
def test_integers_survive_dequantizing_and_quantizing(affine: Affine) -> None:
    low, high = affine.limits
    q = np.arange(low, high + 1).astype(np.int8 if affine.dtype == "s8" else np.uint8)
    assert np.array_equal(quantize(dequantize(q, affine), affine), q)
    assert dequantize(q, affine)[affine.zero_point - low] == 0


@given(MAPS, st.lists(NUMBERS, min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_quantizing_is_idempotent_monotonic_and_keeps_zeros(affine: Affine, values: list[float]) -> None:
    x = np.sort(np.array([*values, 0.0, -0.0], np.float32))
    with np.errstate(over="ignore"):
        q = quantize(x, affine)
    assert (np.diff(q.astype(int)) >= 0).all()
    assert (q[x == 0] == affine.zero_point).all()
    once = dequantize(q, affine)
    assert np.array_equal(dequantize(quantize(once, affine), affine), once)


@given(MAPS, st.floats(-1.0, 256.0), st.booleans())
@settings(max_examples=300, deadline=None)
def test_inside_the_range_the_error_is_half_a_step(affine: Affine, place: float, tie: bool) -> None:
    low, high = affine.limits
    place = min(max(place, 0.0), 255.0) + low
    place = np.floor(place) + 0.5 if tie and place < high - 1 else place
    x = np.float32(np.float32(place - affine.zero_point) * np.float32(affine.scale))
    inside = (low - affine.zero_point) * affine.scale <= float(x) <= (high - affine.zero_point) * affine.scale
    error = abs(float(dequantize(quantize(x[None], affine), affine)[0]) - float(x))
    # 1 / scale, its product with x, and scale * q are each rounded: up to 255 steps times 3 half units.
    assert not inside or error <= affine.scale * (0.5 + 255 * 3 * 2.0**-24)


def test_ties_go_to_the_even_integer_of_the_multiple_not_of_q() -> None:
    # rint comes before the zero point: 0.5 and 1.5 steps, with an odd zero point.
    affine = Affine(0.25, 7, "u8")
    x = np.array([0.125, 0.375, 0.625, -0.125, -0.375], np.float32)
    assert quantize(x, affine).tolist() == [7, 9, 9, 7, 5]


@pytest.mark.parametrize("dtype", ["s8", "u8"])
def test_the_extremes_of_binary32(dtype: str) -> None:
    largest, least = float(np.finfo(np.float32).max), 1e-45
    wide = choose_affine(-largest, largest, dtype)  # type: ignore[arg-type]
    x = np.array([largest, -largest, least, -least, np.inf, -np.inf], np.float32)
    with np.errstate(over="ignore"):
        q = quantize(x, wide)
    assert q[0] == q[4] == wide.limits[1]
    assert q[1] == {"s8": -127, "u8": 0}[dtype]
    assert q[5] == wide.limits[0]
    assert q[2] == q[3] == wide.zero_point
    narrow = choose_affine(0.0, least, dtype)  # type: ignore[arg-type]
    assert narrow.scale == 1
    assert (quantize(np.array([least, -least, 0], np.float32), narrow) == narrow.zero_point).all()


@given(st.floats(-(2.0**100), 0, width=32), st.floats(0, 2.0**100, width=32), st.sampled_from(["s8", "u8"]))
@settings(max_examples=200, deadline=None)
def test_the_ends_of_a_range_come_back_within_a_step(low: float, high: float, dtype: str) -> None:
    affine = choose_affine(low, high, dtype)  # type: ignore[arg-type]
    ends = np.array([low, high], np.float32)
    error = np.abs(dequantize(quantize(ends, affine), affine).astype(np.float64) - ends)
    # The zero point is rounded by half a step, so an end may lie half a step outside of the integers.
    allowed = 0.5 if dtype == "s8" else 1.0
    assert (error <= affine.scale * (allowed + 255 * 3 * 2.0**-24)).all()


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5), st.sampled_from(["s8", "u8"]))
@settings(max_examples=100, deadline=None)
def test_channels_have_the_maps_they_have_alone(ranges: list[tuple[float, float]], dtype: str) -> None:
    ends = np.clip(np.sort(np.array(ranges, np.float32), axis=1), -1e37, 1e37)
    scales, zero_points = choose_affines(ends[:, 0], ends[:, 1], dtype)  # type: ignore[arg-type]
    assert (scales.dtype, zero_points.dtype) == (np.float32, np.int32)
    for (low, high), scale, zero_point in zip(ends, scales, zero_points, strict=True):
        assert Affine(float(scale), int(zero_point), dtype) == choose_affine(float(low), float(high), dtype)  # type: ignore[arg-type]


def test_a_channel_without_a_range_is_named() -> None:
    with pytest.raises(ValueError, match="Channel 1: A range of values must be finite and in order"):
        choose_affines(np.array([0.0, 2.0]), np.array([1.0, 1.0]), "s8")


@pytest.mark.parametrize("axis", [0, 1, -1])
@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_weights_channels_lie_along_any_axis(axis: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = (random.standard_normal((3, 4, 2, 5)) * 10.0 ** random.integers(-20, 20)).astype(np.float32)
    weight[random.random(weight.shape) < 0.5] = 0
    channel = int(random.integers(weight.shape[axis]))
    np.moveaxis(weight, axis, 0)[channel] = 0
    scales = weight_scales(weight, "layer", axis)
    q = quantize_weight(weight, scales, axis)
    moved = np.moveaxis(weight, axis, 0)
    assert np.array_equal(scales, weight_scales(moved, "layer"))
    assert np.array_equal(np.moveaxis(q, axis, 0), quantize_weight(moved, scales))
    back = dequantize_weight(q, scales, axis)
    assert np.array_equal(np.moveaxis(back, axis, 0), dequantize_weight(np.moveaxis(q, axis, 0), scales))
    assert scales[channel] == 1
    assert not q[weight == 0].any()
    assert np.abs(q.astype(int)).max() == 127
    assert np.array_equal(quantize_weight(back, scales, axis), q)


def test_axis_1_is_named_too_where_it_is_no_number() -> None:
    weight = np.ones((4, 3), np.float32)
    weight[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"up: output channel 1 of the weight .* \(1 of 3 channels"):
        weight_scales(weight, "up", axis=1)
