"""Epilogues of native products, and activations as steps: the bits of the NumPy reference on every ISA."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from native_steps import add_step
from openwork import _native as native
from openwork.engine.operators import ACTIVATIONS
from openwork.graph import reference
from openwork.graph.numerics.activations import activate

Array = NDArray[Any]
ISAS = native.isas()
NUMBERS = {
    "clip": {"alpha": -0.75, "beta": 1.5},
    "leaky_relu": {"alpha": 0.1},
    "hard_sigmoid": {"alpha": 0.3, "beta": 0.4},
}
ROWS, K, N = 13, 40, 75
X_SCALE, X_ZERO_POINT = 0.02, 117
QUANTIZED = {"y_scale": 0.02, "y_zero_point": 101}
RESIDUAL = {"residual_scale": 0.015, "residual_zero_point": 90}


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


class Layer:
    """A random INT8 product, its residual as f32 and as u8, and what the reference makes of them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(12)
        self.x = rng.integers(0, 256, (ROWS, K), np.uint8)
        self.weight = rng.integers(-127, 128, (N, K), np.int8)
        self.weight_scale = rng.uniform(2e-3, 4e-3, N).astype(np.float32)
        self.bias = rng.standard_normal(N).astype(np.float32)
        self.residuals: dict[str, Array] = {
            "f32": rng.standard_normal((ROWS, N)).astype(np.float32),
            "u8": rng.integers(0, 256, (ROWS, N), np.uint8),
        }
        self.table = rng.permutation(256).astype(np.uint8)

    def scale(self) -> Array:
        return np.float32(X_SCALE) * self.weight_scale

    def expected(self, residual: Array | None, a: dict[str, Any]) -> Array:
        a = {"x_scale": X_SCALE, "x_zero_point": X_ZERO_POINT, **a}
        return reference.linear(self.x, residual, self.weight, self.weight_scale, self.bias, None, None, a)

    def found(self, isa: str, residual: Array | None, threads: int = 1, **ending: Any) -> Array:
        packed = native.PackedWeights.pack(self.weight, "dense", isa)
        result = native.linear(
            self.x,
            packed,
            self.scale(),
            threads,
            **{"bias": self.bias, "x_zero_point": X_ZERO_POINT, "residual": residual, **ending},
        )
        return np.asarray(result)


@pytest.fixture(scope="module")
def layer() -> Layer:
    return Layer()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_with_every_ending(isa: str, activation: str, layer: Layer) -> None:
    for kind, last, quantized in product((None, "f32", "u8"), (False, True), (False, True)):
        residual = None if kind is None else layer.residuals[kind]
        ending = {**NUMBERS.get(activation, {}), **(QUANTIZED if quantized else {})}
        ending |= RESIDUAL if kind == "u8" else {}
        found = layer.found(isa, residual, activation=activation, activation_last=last, **ending)
        expected = layer.expected(residual, {"activation": activation, "activation_last": last, **ending})
        assert same_bits(found, expected), (kind, last, quantized)


@pytest.mark.parametrize("isa", ISAS)
def test_outputs_of_other_types(isa: str, layer: Layer) -> None:
    a = {"activation": "relu"}
    u8 = layer.expected(None, a | QUANTIZED)
    s8 = layer.found(isa, None, activation="relu", y_type="s8", **QUANTIZED)
    assert same_bits(s8, (u8 ^ 0x80).view(np.int8))
    looked_up = layer.found(isa, None, activation="relu", lookup=layer.table, **QUANTIZED)
    assert same_bits(looked_up, layer.table[u8])
    bits = layer.expected(None, a).view(np.uint32).astype(np.uint64)
    bf16 = layer.found(isa, None, activation="relu", y_type="bf16")
    assert same_bits(bf16, ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16))
    floats = (bf16.astype(np.uint32) << 16).view(np.float32)
    assert same_bits(layer.found(isa, bf16), layer.found(isa, floats))


def test_relu6_is_a_clip(layer: Layer) -> None:
    found = layer.found(ISAS[0], None, activation="relu6")
    assert same_bits(found, layer.expected(None, {"activation": "clip", "alpha": 0.0, "beta": 6.0}))


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"activation": "swish"}, 'found "swish"'),
    ({"y_type": "f16"}, 'linear(): expected a y_type out of f32, bf16, u8 and s8, found "f16".'),
    ({"y_type": "s8"}, 'linear(): expected a y_scale exactly where y_type is u8 or s8, found y_type "s8".'),
    ({"y_type": "bf16", "y_scale": 0.1}, 'found y_type "bf16".'),
    ({"y_scale": 0.0}, "linear(): expected y_scale to be a positive finite number, found 0.000000."),
    (
        {"residual_scale": -1.0},
        "linear(): expected residual_scale to be a positive finite number, found -1.000000.",
    ),
    ({"residual_zero_point": 256}, "linear(): expected residual_zero_point from 0 to 255, found 256."),
    (
        {"lookup": np.zeros(255, np.uint8), "y_scale": 0.1},
        "linear(): expected lookup of shape [256], found [255].",
    ),
    (
        {"lookup": np.zeros(256, np.uint8)},
        "linear(): expected no tensor lookup, because nothing here reads it; leave it out.",
    ),
    (
        {"y_scael": 0.1},
        "linear(): expected no attribute y_scael, because nothing here reads it; leave it out.",
    ),
    (
        {"y_scale": {}},
        "linear(): expected the attribute y_scale to be an integer, a number, a text or a list of integers, "
        "found {}.",
    ),
    (
        {"bias": np.ones(N)},
        "linear(): expected bias of type u8, bf16 (as uint16), f32 or i64, found float64.",
    ),
    (
        {"activation": "clip", "alpha": 2.0, "beta": 1.0},
        "linear(): expected a clip whose low end, alpha, is at most its high end, beta, found 2.0",
    ),
    (
        {"activation": "leaky_relu", "alpha": float("nan")},
        "linear(): expected numbers as the activation's alpha and beta",
    ),
]


@pytest.mark.parametrize(("ending", "message"), REFUSALS)
def test_endings_that_do_not_fit_are_refused(ending: dict[str, Any], message: str, layer: Layer) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        layer.found(ISAS[0], None, **ending)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "none"])
def test_activations_as_steps(isa: str, activation: str) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((3, 900)) * 5).astype(np.float32)
    x[0, :5] = [0.0, -0.0, 40.0, -40.0, np.inf]
    numbers = NUMBERS.get(activation, {})
    program = native.Program(isa)
    i, y = program.value("f32", list(x.shape)), program.value("f32", list(x.shape))
    add_step(program, activation, "a", x=i, y=y, **numbers)
    program.finish([i], [y])
    (found,) = native.Context(program, 2).run([x])
    assert same_bits(np.asarray(found), activate(x, activation, **numbers))


@pytest.mark.parametrize("isa", ISAS)
def test_a_program_adds_a_u8_residual_before_its_relu(isa: str, layer: Layer) -> None:
    program = native.Program(isa)
    x, r, y = (program.value("u8", [-1, n]) for n in (K, N, N))
    packed = native.PackedWeights.pack(layer.weight, "dense", isa)
    a = {"activation": "relu", "activation_last": 1, **QUANTIZED, **RESIDUAL}
    product = {"weight_scale": layer.weight_scale, "x_scale": X_SCALE, "x_zero_point": X_ZERO_POINT}
    add_step(program, "linear", "l", x=x, residual=r, y=y, weights=packed, bias=layer.bias, **product, **a)
    program.finish([x, r], [y])
    (found,) = native.Context(program, 2).run([layer.x, layer.residuals["u8"]])
    assert same_bits(np.asarray(found), layer.expected(layer.residuals["u8"], a))
