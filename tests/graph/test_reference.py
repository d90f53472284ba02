"""The NumPy reference against exact arithmetic, the mathematical functions, and ONNX Runtime."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention_bound
from attention_samples import attended
from openwork.graph import reference
from openwork.graph.model import ModelError
from openwork.graph.numerics import activations, binary32, coefficients

SIMD = Path(__file__).parents[2] / "native" / "simd"
F32 = np.float32
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def round_to_binary32(value: Fraction) -> np.float32:
    """The binary32 nearest to an exact number, ties to even, by searching between its neighbours."""
    if abs(value) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        return F32(math.copysign(math.inf, value))
    # The neighbour of the largest number is infinity, which NumPy warns of.
    with np.errstate(over="ignore"):
        guess = F32(float(value))
        around = [np.nextafter(guess, F32(-np.inf)), guess, np.nextafter(guess, F32(np.inf))]
    finite = [g for g in around if np.isfinite(g)]
    return min(finite, key=lambda g: (abs(Fraction(float(g)) - value), int(g.view(np.uint32)) & 1))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(floats, floats, floats)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = binary32.fma(F32(a), F32(b), F32(c))
    assert float(found) == float(round_to_binary32(exact)), (a, b, c)


def halfway_cases() -> list[tuple[float, float, float]]:
    """Sums that lie on or just off the middle of two binary32 numbers: where rounding twice goes wrong."""
    cases = []
    for exponent in (-149, -140, -30, 0, 60):
        tiny = math.ldexp(1.0, max(exponent - 80, -149))
        for odd in (1, 3, 2**24 + 1, 2**25 + 2**1 + 1):
            for nudge in (tiny, -tiny, 0.0):
                cases.append((float(odd), math.ldexp(1.0, exponent), nudge))
    return [case for case in cases if all(float(F32(part)) == part for part in case)]


def test_fma_at_the_middle_of_two_numbers() -> None:
    rng = np.random.default_rng(3)
    cases = halfway_cases()
    for _ in range(3000):
        # (1 + i 2^-12) (1 + j 2^-12) has bits down to 2^-24, the half of a unit in the last place of [1, 2).
        a, b = 1 + rng.integers(0, 4096, 2) / 4096
        cases.append((float(a), float(b), float(F32(rng.choice([-1, 1]) * 2.0 ** rng.integers(-120, -20)))))
    for a, b, c in cases:
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        assert float(binary32.fma(F32(a), F32(b), F32(c))) == float(round_to_binary32(exact)), (a, b, c)


def test_fma_differs_from_rounding_twice() -> None:
    """A case that fails without the step to odd, so that the test above can fail."""
    a, b, c = F32(1 + 2.0**-12), F32(1 + 2.0**-12), F32(2.0**-80)
    twice = F32(np.float64(a) * np.float64(b) + np.float64(c))
    assert binary32.fma(a, b, c) == np.nextafter(twice, F32(2))


def test_fma_of_infinities_and_nan() -> None:
    inf, nan = F32(np.inf), F32(np.nan)
    assert binary32.fma(inf, F32(1), F32(1)) == inf
    assert np.isnan(binary32.fma(inf, F32(0), F32(1)))
    assert np.isnan(binary32.fma(nan, F32(1), F32(1)))
    assert binary32.fma(F32(3e38), F32(10), F32(0)) == inf


def plain_sum16(x: np.ndarray) -> np.float32:
    lanes = [F32(0)] * 16
    for i, value in enumerate(x):
        lanes[i % 16] = F32(lanes[i % 16] + value)
    for width in (8, 4, 2, 1):
        for j in range(width):
            lanes[j] = F32(lanes[j] + lanes[j + width])
    return lanes[0]


@pytest.mark.parametrize("n", [0, 1, 7, 15, 16, 17, 31, 100])
def test_sum16_and_dot16_follow_the_page(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n)).astype(F32)
    assert binary32.sum16(x) == plain_sum16(x)
    lanes = [F32(0)] * 16
    for i in range(n):
        lanes[i % 16] = binary32.fma(x[i], y[i], lanes[i % 16])
    assert binary32.dot16(x, y) == plain_sum16(np.array(lanes))


def test_coefficients_are_those_of_the_native_code() -> None:
    text = "".join((SIMD / name).read_text(encoding="utf-8") for name in ("math.h", "activations.h"))

    def constants(name: str) -> list[float]:
        found = re.search(rf"\b{name}(?:\[[^\]]*\])*\s*=\s*([^;]*);", text)
        assert found, f"No header of {SIMD} defines {name}"
        return [float.fromhex(word) for word in re.findall(r"-?0x[0-9a-f.]+p[+-]\d+", found.group(1))]

    assert constants("kGelu") == coefficients.GELU.ravel().tolist()
    assert constants("kGeluTanh") == coefficients.GELU_TANH.ravel().tolist()
    assert constants("kGeluSteps") == [float(coefficients.GELU_STEPS)]
    assert constants("kGeluClamp") == [float(coefficients.GELU_CLAMP)]
    for name in ("Silu", "Tanh"):
        assert constants(f"k{name}") == getattr(coefficients, name.upper()).ravel().tolist()
        assert constants(f"k{name}Steps") == [float(getattr(coefficients, f"{name.upper()}_STEPS"))]
        assert constants(f"k{name}Clamp") == [float(getattr(coefficients, f"{name.upper()}_CLAMP"))]
    assert constants("kExp") == coefficients.EXP.tolist()
    assert constants("kFixedExp2") == coefficients.FIXED_EXP2.tolist()
    assert constants("kLog2e") == [float(coefficients.LOG2E)]
    assert constants("kLn2High") == [float(coefficients.LN2_HIGH)]
    assert constants("kLn2Low") == [float(coefficients.LN2_LOW)]


def test_exp_is_within_its_bound() -> None:
    x = np.linspace(-87, 88, 200_001).astype(F32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(binary32.exp(x) - exact) / exact).max() < 2e-7
    assert (
        binary32.exp(np.array([-1000, 1000], F32)).tolist() == binary32.exp(np.array([-87, 88], F32)).tolist()
    )


def test_gelu_is_within_its_bound() -> None:
    # The middle of two pieces, where the polynomials meet, and its neighbours.
    ends = ((np.arange(16) + 0.5) / 2.75).astype(F32)
    ends = np.concatenate([ends, np.nextafter(ends, F32(0)), np.nextafter(ends, F32(9))])
    x = np.concatenate([np.linspace(-20, 20, 40_001).astype(F32), ends, -ends])
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.astype(np.float64)])
    error = np.abs(binary32.gelu(x) - exact)
    near = np.abs(x) <= 8
    # Of the fit 3.6e-7, and half a unit in the last place of numbers below 8.
    assert error[near].max() < 7e-7
    assert (error[~near] / np.abs(x[~near])).max() < 1e-7


def test_gelu_in_its_limits() -> None:
    x = np.array([0, -0.0, np.inf, -np.inf, 5.28, -5.28, 3e38, -3e38, 1e-40], F32)
    expected = np.array([0, -0.0, np.inf, 0, 5.28, 0, 3e38, 0, F32(1e-40) / 2], F32)
    assert binary32.gelu(x).tobytes() == expected.tobytes()
    assert np.isnan(binary32.gelu(np.array([np.nan, -np.nan], F32))).all()


TORCH = {
    "relu": torch.nn.functional.relu,
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hard_swish": torch.nn.functional.hardswish,
    "gelu": torch.nn.functional.gelu,
}
# Absolute, as docs/arithmetic.md states them; the hard ones and relu only round.
BOUNDS = {"relu": 0.0, "silu": 1e-6, "sigmoid": 5.1e-7, "tanh": 1e-6, "hard_swish": 2e-6, "gelu": 2e-6}


@pytest.mark.parametrize("name", sorted(TORCH))
def test_activations_are_within_their_bounds(name: str) -> None:
    # Where the pieces meet, and their neighbours: 1 + steps a is a power of two times 1, 1.25, 1.5 or 1.75.
    t = np.array([2.0**e * (1 + q / 4) for e in range(4) for q in range(4)])
    ends = np.concatenate([(t - 1) / 0.75, (t - 1) / 1.625]).astype(F32)
    ends = np.concatenate([ends, np.nextafter(ends, F32(0)), np.nextafter(ends, F32(99))])
    x = np.concatenate([np.linspace(-16, 16, 40_001).astype(F32), ends, -ends])
    exact = TORCH[name](torch.tensor(x, dtype=torch.float64)).numpy()
    assert np.abs(activations.activate(x, name) - exact).max() <= BOUNDS[name]


def test_the_bounds_of_activations_can_fail() -> None:
    x = np.linspace(-3, 3, 101).astype(F32)
    exact = TORCH["silu"](torch.tensor(x, dtype=torch.float64)).numpy()
    assert np.abs(activations.activate(x, "sigmoid") - exact).max() > BOUNDS["silu"]


def test_activations_with_numbers() -> None:
    x = np.array([-4, -0.5, -0.0, 0.5, 7], F32)
    assert activations.activate(x, "clip", -1, 6).tolist() == [-1, -0.5, 0, 0.5, 6]
    assert activations.activate(x, "leaky_relu", 0.25).tolist() == [-1, -0.125, 0, 0.5, 7]
    assert activations.activate(x, "hard_sigmoid", 0.25, 0.5).tolist() == [0, 0.375, 0.5, 0.625, 1]


def test_activations_in_their_limits() -> None:
    x = np.array([np.inf, -np.inf, 0, -0.0, 1e30, -1e30], F32)
    limits = {
        "silu": [np.inf, 0, 0, -0.0, F32(1e30), 0],
        "sigmoid": [1, 0, 0.5, 0.5, 1, 0],
        "tanh": [1, -1, 0, -0.0, 1, -1],
    }
    for name, expected in limits.items():
        assert activations.activate(x, name).tobytes() == F32(expected).tobytes(), name
    nan = np.array([np.nan], F32)
    for name in ("silu", "sigmoid", "tanh", "hard_swish"):
        assert np.isnan(activations.activate(nan, name)).all()
    assert activations.activate(nan, "clip", -2, 3).tolist() == [-2]


@pytest.mark.parametrize("activation", ["none", "relu", "clip"])
@pytest.mark.parametrize("quantized", [False, True])
def test_quantized_linear_is_the_quantized_float_one(activation: str, quantized: bool) -> None:
    """The order in units of the output moves a number by a rounding, so a u8 by a tie at most."""
    rng = np.random.default_rng(11)
    x, weight = rng.integers(0, 256, (40, 64), np.uint8), rng.integers(-127, 128, (24, 64), np.int8)
    scale, bias = rng.uniform(1e-3, 2e-3, 24).astype(F32), rng.standard_normal(24).astype(F32)
    a = {"x_scale": 0.02, "x_zero_point": 120, "activation": activation, "activation_last": 1}
    a |= {"alpha": -1.5, "beta": 2.0} if activation == "clip" else {}
    residual = rng.integers(0, 256, (40, 24), np.uint8)
    numbers = residual.astype(F32)
    if quantized:
        a |= {"residual_scale": 0.02, "residual_zero_point": 7}
        numbers = (numbers - F32(7)) * F32(0.02)
    else:
        numbers = residual = numbers * F32(0.01)
    found = reference.linear(
        x, residual, weight, scale, bias, None, None, a | {"y_scale": 0.05, "y_zero_point": 50}
    )
    plain = {key: value for key, value in a.items() if not key.startswith("residual")}
    floats = reference.linear(x, numbers, weight, scale, bias, None, None, plain)
    difference = np.abs(found.astype(int) - binary32.quantize(floats, 0.05, 50).astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-2


def test_quantize_at_its_edges() -> None:
    x = np.array([np.nan, -np.inf, np.inf, 0, 0.5, 1.5, 2.5, -0.5, 1e30, -1e30], F32)
    assert binary32.quantize(x, 1.0, 10).tolist() == [0, 0, 255, 10, 10, 12, 12, 10, 255, 0]
    assert binary32.quantize(np.array([-1, 1], F32), 1.0, 0).tolist() == [0, 1]
    assert binary32.quantize(np.array([-1, 1], F32), 1.0, 255).tolist() == [254, 255]


@pytest.mark.parametrize("zero_point", [0, 128, 255])
@pytest.mark.parametrize("extreme", [False, True])
def test_linear_is_exact(zero_point: int, extreme: bool) -> None:
    rng = np.random.default_rng(zero_point)
    x = np.full((2, 3, 4096), 255, np.uint8) if extreme else rng.integers(0, 256, (2, 3, 37)).astype(np.uint8)
    weight = rng.integers(-127, 128, (5, x.shape[-1])).astype(np.int8)
    if extreme:
        weight[:] = 127
    scale = rng.uniform(0.01, 0.1, 5).astype(F32)
    bias, residual = rng.standard_normal(5).astype(F32), rng.standard_normal((2, 3, 5)).astype(F32)
    a = {"x_scale": 0.03, "x_zero_point": zero_point, "activation": "relu"}
    found = reference.linear(x, residual, weight, scale, bias, None, None, a)
    total = (x.astype(np.int64) - zero_point) @ weight.T.astype(np.int64)
    for index in np.ndindex(found.shape):
        v = binary32.fma(F32(total[index]), F32(F32(0.03) * scale[index[-1]]), bias[index[-1]])
        assert found[index] == F32(max(v, F32(0)) + residual[index])


def test_linear_float_goes_through_the_channels_in_order() -> None:
    rng = np.random.default_rng(5)
    x, weight = rng.standard_normal((3, 19)).astype(F32), rng.standard_normal((4, 19)).astype(F32)
    found = reference.linear_float(x, None, weight, None, {"activation": "none"})
    for r, c in np.ndindex(found.shape):
        acc = F32(0)
        for i in range(19):
            acc = binary32.fma(x[r, i], weight[c, i], acc)
        assert found[r, c] == acc


def test_layer_norm_is_normal() -> None:
    rng = np.random.default_rng(6)
    x = (rng.standard_normal((4, 5, 48)) * 3 + 1).astype(F32)
    gamma, beta = rng.standard_normal((2, 48)).astype(F32)
    y, yq = reference.layer_norm(x, gamma, beta, None, {"epsilon": 1e-5, "y_scale": 0.1, "y_zero_point": 100})
    wide = x.astype(np.float64)
    d = wide - wide.mean(-1, keepdims=True)
    exact = d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    # Each of about n / 16 + 10 roundings errs by 2^-24 of numbers below 8.
    assert np.abs(y - exact).max() < 16 * 2.0**-24 * 8
    assert yq is not None
    assert np.array_equal(yq, binary32.quantize(y, 0.1, 100))


@pytest.mark.parametrize("packed", [False, True])
def test_attention_is_softmax_of_the_kept_keys(packed: bool) -> None:
    rng = np.random.default_rng(7)
    q, k, v = rng.standard_normal((3, 2, 5, 12)).astype(F32)
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], np.int64)
    a = {"heads": 3, "scale": 0.5}
    operands = (np.concatenate([q, k, v], -1), None, None) if packed else (q, k, v)
    y = attended(*operands, mask, a)
    heads = [x.astype(np.float64).reshape(2, 5, 3, 4).transpose(0, 2, 1, 3) for x in (q, k, v)]
    s = np.where(mask[0] != 0, heads[0][0] @ heads[1][0].swapaxes(1, 2) * 0.5, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    exact = (p / p.sum(-1, keepdims=True) @ heads[2][0]).transpose(1, 0, 2).reshape(5, 12)
    error = np.abs(y[0] - exact).max()
    assert error < attention_bound.bound(q[:1], k[:1], v[:1], 3, 0.5) < 1e-2
    assert not y[1].any()


def test_pooling_and_norm_of_nothing() -> None:
    x = np.ones((2, 3, 4), F32)
    pooled = reference.mean_pool(x * np.array([[[1], [2], [4]]], F32), np.array([[1, 0, 1], [0, 0, 0]]), {})
    assert pooled.tolist() == [[2.5] * 4, [0.0] * 4]
    assert reference.l2_normalize(np.zeros((1, 4), F32), {"epsilon": 1e-12}).tolist() == [[0.0] * 4]
    assert reference.l2_normalize(F32([[3, 4]]), {"epsilon": 1e-12}).tolist() == F32([[0.6, 0.8]]).tolist()


def test_embedding_sum_adds_in_order_and_refuses_unknown_ids() -> None:
    rng = np.random.default_rng(8)
    word, position, kind = (rng.standard_normal((n, 4)).astype(F32) for n in (10, 6, 2))
    ids, types = np.array([[1, 9, 0]]), np.array([[0, 1, 1]])
    y = reference.embedding_sum(ids, types, None, word, position, kind, {})
    assert np.array_equal(y, (word[ids] + kind[types]) + position[:3])
    assert np.array_equal(
        reference.embedding_sum(ids, None, None, word, position, None, {}), word[ids] + position[:3]
    )
    with pytest.raises(ModelError, match=r"ids must lie in \[0, 9\].* reach from 0 to 10"):
        reference.embedding_sum(np.array([[0, 10]]), None, None, word, position, None, {})
    with pytest.raises(ModelError, match="has 7 tokens, but the model has only 6 positions"):
        reference.embedding_sum(np.zeros((1, 7), np.int64), None, None, word, position, None, {})
