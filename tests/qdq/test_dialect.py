"""Zero points in the integers of another dialect, and biases in units of their products."""

from __future__ import annotations

import numpy as np
import pytest

from openwork.qdq.biases import LIMIT, quantized_bias
from openwork.qdq.dialect import recoded, refusal
from openwork.qdq.targets import TARGETS


@pytest.mark.parametrize("zero_point", [-128, -1, 0, 127])
def test_a_zero_point_moves_by_128_and_back(zero_point: int) -> None:
    moved = recoded(np.array(zero_point, np.int8), "s8", "u8")
    assert moved is not None
    assert (moved.dtype, int(moved)) == (np.uint8, zero_point + 128)
    back = recoded(moved, "u8", "s8")
    assert back is not None
    assert (back.dtype, int(back)) == (np.int8, zero_point)


def test_a_symmetric_target_takes_the_middle_only() -> None:
    target = TARGETS["tensorrt"]
    assert refusal(np.array([128, 128], np.uint8), "u8", target) is None
    assert refusal(np.array(0, np.int8), "s8", target) is None
    assert refusal(np.array([128, 3, 3], np.uint8), "u8", target) == "is u8 with the zero point 3, 128"
    assert refusal(np.array(-5, np.int8), "s8", TARGETS["onnxruntime"]) is None


def test_a_bias_is_rounded_to_the_nearest_unit() -> None:
    bias = np.array([0.75, -0.26, 0.0], np.float32)
    stored = quantized_bias(bias, np.float32(0.5), np.array([0.5, 0.25, 1.0], np.float32))
    assert stored is not None
    integers, unit = stored
    assert integers.tolist() == [3, -2, 0]
    assert unit.tolist() == [0.25, 0.125, 0.5]
    assert (integers.dtype, unit.dtype) == (np.int32, np.float32)


def test_a_bias_beyond_int32_or_of_no_unit_stays_float() -> None:
    one = np.float32(1)
    assert quantized_bias(np.array([float(LIMIT) + 1], np.float32), one, one) is None
    assert quantized_bias(np.array([-(2.0**30)], np.float32), one, one) is not None
    assert quantized_bias(np.array([1e-20], np.float32), np.float32(1e-20), np.float32(1e-20)) is None
