"""The native operators, one step at a time, on every instruction set.

They have the bits of the NumPy reference, and agree with torch within what rounding allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import attention_bound
from attention_samples import attended
from native_steps import add_step
from openwork import _native as native
from openwork.graph import reference
from openwork.graph.numerics import activations

Array = NDArray[Any]
EPSILON = float(np.finfo(np.float32).eps)
ISAS = native.isas()
QUANTIZED = {"y_scale": 0.03125, "y_zero_point": 117}
B, L, H = 2, 19, 40


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def floats(seed: int, *shape: int, spread: float = 1.0) -> NDArray[np.float32]:
    return (rng(seed).standard_normal(shape) * spread).astype(np.float32)


def some_mask(seed: int) -> NDArray[np.int64]:
    mask = rng(seed).integers(0, 2, (B, L))
    mask[:, 3] = 1
    return mask


class OneStep:
    """A program of one step on the shapes of its inputs, run with 1 and 2 threads."""

    def __init__(self, isa: str) -> None:
        self.program = native.Program(isa)
        self.inputs: list[int] = []
        self.arrays: list[Array] = []

    def input(self, array: Array) -> int:
        names = {"uint8": "u8", "uint16": "bf16", "float32": "f32", "int64": "i64"}
        self.inputs.append(self.program.value(names[array.dtype.name], list(array.shape)))
        self.arrays.append(array)
        return self.inputs[-1]

    def output(self, dtype: str, shape: Sequence[int]) -> int:
        return int(self.program.value(dtype, list(shape)))

    def add(self, op: str, **given: Any) -> None:
        add_step(self.program, op, op, **given)

    def run(self, *outputs: int) -> list[Array]:
        self.program.finish(self.inputs, list(outputs))
        one, two = (native.Context(self.program, threads).run(self.arrays) for threads in (1, 2))
        for a, b in zip(one, two, strict=True):
            assert same_bits(a, b)
        return [np.asarray(a) for a in one]


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def close(found: Array, expected: Array, tolerance: float) -> bool:
    return bool(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max() <= tolerance)


def test_same_bits_and_close_can_fail() -> None:
    one = np.ones(3, np.float32)
    assert not same_bits(one, np.nextafter(one, np.float32(2)))
    assert not close(one, one + np.float32(0.5), 0.4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("typed", [False, True])
def test_embedding_sum(isa: str, typed: bool) -> None:
    ids, types = rng(1).integers(0, 50, (B, L)), rng(2).integers(0, 2, (B, L))
    word, position, type_ = floats(3, 50, H), floats(4, 30, H), floats(5, 2, H)
    word.setflags(write=False)
    step = OneStep(isa)
    i, t = step.input(ids), step.input(types) if typed else None
    y = step.output("f32", (B, L, H))
    tables = {"word": word, "position": position, "type": type_ if typed else None}
    step.add("embedding_sum", ids=i, type_ids=t, y=y, **tables)
    expected = reference.embedding_sum(
        ids, types if typed else None, None, word, position, type_ if typed else None, {}
    )
    assert same_bits(step.run(y)[0], expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 16, 40, 384])
def test_layer_norm(isa: str, width: int) -> None:
    x, gamma, beta = floats(1, 5, width), floats(2, width), floats(3, width)
    multiplier = np.abs(floats(4, width)) + np.float32(0.1)
    step = OneStep(isa)
    i, y, yq = step.input(x), step.output("f32", x.shape), step.output("u8", x.shape)
    tensors = {"gamma": gamma, "beta": beta, "y_multiplier": multiplier}
    step.add("layer_norm", x=i, y=y, yq=yq, epsilon=1e-5, **tensors, **QUANTIZED)
    found, quantized = step.run(y, yq)
    expected, expected_quantized = reference.layer_norm(
        x, gamma, beta, multiplier, {"epsilon": 1e-5, **QUANTIZED}
    )
    assert same_bits(found, expected)
    assert expected_quantized is not None
    assert same_bits(quantized, expected_quantized)
    if width > 1:
        witness = torch.nn.functional.layer_norm(
            torch.tensor(x), (width,), torch.tensor(gamma), torch.tensor(beta), 1e-5
        ).numpy()
        # Both round mean and variance at most `width` times at the size of the data; rstd multiplies that up.
        tolerance = 4 * width * EPSILON * float(np.abs(witness).max() + np.abs(beta).max())
        assert close(found, witness, tolerance)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(isa: str, packed: bool, masked: bool, quantized: bool) -> None:
    heads, scale = 2, 0.2
    q, k, v = (floats(seed, B, L, H, spread=2.0) for seed in (1, 2, 3))
    mask = some_mask(4) if masked else None
    step = OneStep(isa)
    if packed:
        ids = {"q": step.input(np.concatenate([q, k, v], axis=-1))}
    else:
        ids = {name: step.input(part) for name, part in (("q", q), ("k", k), ("v", v))}
    m = None if mask is None else step.input(mask)
    y = step.output("u8" if quantized else "f32", (B, L, H))
    attributes = {"heads": heads, "scale": scale, **(QUANTIZED if quantized else {})}
    step.add("attention", **ids, mask=m, y=y, **attributes)
    found = step.run(y)[0]
    assert same_bits(found, attended(q, k, v, mask, attributes))
    if quantized:
        return
    parts = (torch.tensor(x).view(B, L, heads, H // heads).transpose(1, 2) for x in (q, k, v))
    kept = None if mask is None else torch.tensor(mask != 0)[:, None, None, :]
    witness = torch.nn.functional.scaled_dot_product_attention(*parts, attn_mask=kept, scale=scale)
    tolerance = attention_bound.bound(q, k, v, heads, scale)
    assert close(found, witness.transpose(1, 2).reshape(B, L, H).numpy(), tolerance)


MASKS: dict[str, Callable[[int], Array | None]] = {
    "all": lambda length: None,
    "padding": lambda length: np.arange(length) <= length // 2,
    "holes": lambda length: rng(length).integers(0, 3, length) > 0,
    "one": lambda length: np.arange(length) == length - 1,
    "none": lambda length: np.zeros(length, np.bool_),
}


def attention_of(isa: str, qkv: NDArray[np.float32], mask: Array | None, heads: int, scale: float) -> Array:
    step = OneStep(isa)
    i, y = step.input(qkv), step.output("f32", (*qkv.shape[:2], qkv.shape[2] // 3))
    m = None if mask is None else step.input(mask)
    step.add("attention", q=i, mask=m, y=y, heads=heads, scale=scale)
    return step.run(y)[0]


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("size", [1, 8, 32, 33, 64, 128, 129])
def test_attention_of_every_shape(size: int, kind: str) -> None:
    for length in (1, 7, 16, 65, 130, 520):
        heads = 2 if length < 500 else 1
        qkv, row = floats(length, 1, length, 3 * heads * size, spread=1.5), MASKS[kind](length)
        mask = None if row is None else row[None].astype(np.int64)
        scale = size**-0.5
        expected = attended(qkv, None, None, mask, {"heads": heads, "scale": scale})
        for isa in ISAS:
            assert same_bits(attention_of(isa, qkv, mask, heads, scale), expected), (isa, length)
        if row is not None and not row.any():
            assert not expected.any()
            continue
        parts = np.split(qkv, 3, axis=-1)
        q, k, v = (torch.tensor(x).view(1, length, heads, size).transpose(1, 2) for x in parts)
        kept = None if row is None else torch.tensor(row)[None, None, None, :]
        witness = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept, scale=scale)
        tolerance = attention_bound.bound(*parts, heads, scale)
        assert close(expected, witness.transpose(1, 2).reshape(expected.shape).numpy(), tolerance)
        assert tolerance < 0.05 * float(np.abs(parts[2]).max())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("spread", "scale"), [(0.0, 1.0), (1e-25, 1.0), (1e10, 1e-20), (1e15, 1e-30), (2.0, -0.5), (3.0, 1e-11)]
)
def test_attention_of_extreme_numbers(isa: str, spread: float, scale: float) -> None:
    qkv = floats(7, 2, 21, 3 * H, spread=spread)
    expected = attended(qkv, None, None, None, {"heads": 2, "scale": scale})
    assert same_bits(attention_of(isa, qkv, None, 2, scale), expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attention_without_any_kept_key_is_zero(isa: str) -> None:
    mask = np.zeros((B, L), np.int64)
    mask[1] = 1
    step = OneStep(isa)
    qkv, m, y = step.input(floats(1, B, L, 3 * H)), step.input(mask), step.output("f32", (B, L, H))
    step.add("attention", q=qkv, mask=m, y=y, heads=4, scale=0.3)
    found = step.run(y)[0]
    assert not found[0].any()
    assert found[1].all()


ROUNDINGS = {
    "score_scale": 0.05,
    "score_zero_point": 120,
    "probability_scale": 1 / 255,
    "probability_zero_point": 0,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("names", [("score",), ("probability",), ("score", "probability")])
def test_attention_with_roundings_inside(isa: str, names: tuple[str, ...], masked: bool) -> None:
    q, k, v = (floats(seed, B, L, H, spread=2.0) for seed in (1, 2, 3))
    mask = some_mask(4) if masked else None
    rounded = {name: value for name, value in ROUNDINGS.items() if name.split("_")[0] in names}
    step = OneStep(isa)
    ids = {name: step.input(part) for name, part in (("q", q), ("k", k), ("v", v))}
    m, y = None if mask is None else step.input(mask), step.output("f32", (B, L, H))
    step.add("attention", **ids, mask=m, y=y, heads=2, scale=0.2, **rounded)
    found = step.run(y)[0]
    assert same_bits(found, attended(q, k, v, mask, {"heads": 2, "scale": 0.2, **rounded}))
    plain = attended(q, k, v, mask, {"heads": 2, "scale": 0.2})
    assert not close(found, plain, 1e-4)
    # A score is off by at most half a step, or clamped; then the weights move by its exponential.
    assert close(found, plain, float(np.abs(v).max()))


def rounded_to_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def widened(x: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (x.astype(np.uint32) << 16).view(np.float32)


def pruned_floats(seed: int, n: int, k: int) -> NDArray[np.float32]:
    """Weights whose zeros four neighbouring channels share."""
    kept = np.repeat(rng(seed).random((-(-n // 4), k)) < 0.4, 4, axis=0)[:n]
    return floats(seed, n, k) * kept


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("quantized", [False, True])
def test_linear_of_floats_in_every_form(isa: str, activation: str, quantized: bool) -> None:
    rows, k, n = 19, 37, 50
    x, weight, bias, residual = floats(1, rows, k), pruned_floats(2, n, k), floats(3, n), floats(4, rows, n)
    attributes = {"activation": activation, **(QUANTIZED if quantized else {})}
    expected = reference.linear_float(x, residual, weight, bias, attributes)
    for form in [known.name for known in native.forms(isa, "f32")]:
        if form == "depthwise":
            continue
        step = OneStep(isa)
        i, r = step.input(x), step.input(residual)
        y = step.output("u8" if quantized else "f32", (rows, n))
        packed = native.PackedWeights.pack(weight, form, isa)
        step.add("linear", x=i, residual=r, y=y, weights=packed, bias=bias, **attributes)
        assert same_bits(step.run(y)[0], expected), form


@pytest.mark.parametrize("isa", ISAS)
def test_linear_of_bf16_rounds_the_rows_of_floats(isa: str) -> None:
    rows, k, n = 300, 70, 50
    x, weight, residual = floats(1, rows, k), pruned_floats(2, n, k), rounded_to_bf16(floats(4, rows, n))
    halves, exact = rounded_to_bf16(weight), widened(rounded_to_bf16(x)).astype(np.float64)
    exact = exact @ widened(halves).astype(np.float64).T + widened(residual)
    # Each of k products and k + 2 sums is rounded at the size of the magnitudes, the output once to 8 bits.
    bound = 2 * (k + 2) * 2.0**-24 * (np.abs(x) @ np.abs(weight).T + np.abs(widened(residual)))
    for form in [known.name for known in native.forms(isa, "bf16")]:
        if form == "depthwise":
            continue
        made = []
        for fed in (x, rounded_to_bf16(x)):
            step = OneStep(isa)
            i, r, y = step.input(fed), step.input(residual), step.output("bf16", (rows, n))
            packed = native.PackedWeights.pack(halves, form, isa)
            step.add("linear", x=i, residual=r, y=y, weights=packed, activation="none")
            made.append(step.run(y)[0])
        assert same_bits(*made), form
        error = np.abs(widened(made[0]) - exact)
        assert (error <= bound + 2.0**-8 * (np.abs(exact) + bound)).all(), form


@pytest.mark.parametrize("isa", ISAS)
def test_convolutions_take_and_give_bf16_as_products_do(isa: str) -> None:
    x = rng(1).integers(0, 256, (1, 4, 5, 33), np.uint8)
    weight, residual = rng(2).integers(-127, 128, (24, 33), np.int8), rounded_to_bf16(floats(3, 1, 4, 5, 24))
    scale, rows = np.full(24, 1e-4, np.float32), (20, 24)
    product = {"weight_scale": scale, "x_scale": 1.0, "x_zero_point": 7, "activation": "none"}
    grid = {"kernel": (1, 1), "groups": 1, "strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    pack = native.PackedWeights.pack
    image = OneStep(isa)
    i, r, y = image.input(x), image.input(residual), image.output("bf16", residual.shape)
    packed = pack(weight.reshape(24, 1, 1, 33), "dense", isa)
    image.add("conv", x=i, residual=r, y=y, weights=packed, **product, **grid)
    matrix = OneStep(isa)
    i, r = matrix.input(x.reshape(20, 33)), matrix.input(residual.reshape(rows))
    z = matrix.output("bf16", rows)
    matrix.add("linear", x=i, residual=r, y=z, weights=pack(weight, "dense", isa), **product)
    found = image.run(y)[0]
    assert same_bits(found.reshape(rows), matrix.run(z)[0])
    sums = (x.reshape(20, 33).astype(np.float64) - 7) @ weight.T.astype(np.float64)
    exact = sums * scale.astype(np.float64) + widened(residual).reshape(rows)
    # Two roundings to 24 bits of numbers below 64, one to 8.
    assert close(widened(found).reshape(rows), exact, 2.0**-8 * float(np.abs(exact).max()) + 2.0**-17)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_dequantize(isa: str, zero_point: int) -> None:
    x = rng(1).integers(0, 256, (3, 1001)).astype(np.uint8)
    step = OneStep(isa)
    i, y = step.input(x), step.output("f32", x.shape)
    step.add("dequantize", x=i, y=y, x_scale=0.037, x_zero_point=zero_point)
    expected = (x.astype(np.int32) - zero_point).astype(np.float32) * np.float32(0.037)
    assert same_bits(step.run(y)[0], expected)


@pytest.mark.parametrize("isa", ISAS)
def test_lookup(isa: str) -> None:
    x, table = rng(1).integers(0, 256, (7, 1001)).astype(np.uint8), rng(2).permutation(256).astype(np.uint8)
    step = OneStep(isa)
    i, y = step.input(x), step.output("u8", x.shape)
    step.add("lookup", x=i, y=y, table=table)
    assert same_bits(step.run(y)[0], table[x])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["u8", "bf16", "f32"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("width", [1, 5, 64, 130])
def test_concat(isa: str, dtype: str, axis: int, width: int) -> None:
    kind = {"u8": np.uint8, "bf16": np.uint16, "f32": np.float32}[dtype]
    shapes = [[4, 6, width] for _ in range(3)]
    for number, shape in enumerate(shapes):
        shape[axis] = 1 + number * 2
    arrays = [(floats(seed, *shape) * 100).astype(np.int32).astype(kind) for seed, shape in enumerate(shapes)]
    rows = [np.arange(256), rng(9).permutation(256), np.arange(256)[::-1]]
    tables = np.array(rows, np.uint8) if dtype == "u8" else None
    expected = [a if tables is None else tables[i][a] for i, a in enumerate(arrays)]
    step = OneStep(isa)
    inputs = [step.input(a) for a in arrays]
    whole = np.concatenate(expected, axis=axis)
    y = step.output(dtype, whole.shape)
    step.add("concat", x=inputs, y=y, axis=axis, tables=tables)
    assert same_bits(step.run(y)[0], whole)


def _multiplied(
    isa: str, x: Array, packed: native.PackedWeights, tensors: dict[str, Array], attributes: dict[str, Any]
) -> Array:
    step = OneStep(isa)
    y = step.output("u8", (len(x), packed.n))
    step.add("linear", x=step.input(x), y=y, weights=packed, **tensors, **attributes)
    return step.run(y)[0]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("quantized", [False, True])
def test_linear(isa: str, activation: str, quantized: bool) -> None:
    rows, k, n, zero_point, x_scale = 33, 70, 50, 121, 0.02
    x = rng(1).integers(0, 256, (rows, k), np.uint8)
    weight = rng(2).integers(-127, 128, (n, k), np.int8)
    weight_scale, bias, residual = (
        np.abs(floats(3, n, spread=1e-3)) + np.float32(1e-4),
        floats(4, n),
        floats(5, rows, n),
    )
    scale = np.float32(x_scale) * weight_scale
    step = OneStep(isa)
    i, r = step.input(x), step.input(residual)
    y = step.output("u8" if quantized else "f32", (rows, n))
    packed = native.PackedWeights.pack(weight, "dense", isa)
    a = {"x_scale": x_scale, "x_zero_point": zero_point, "activation": activation}
    a |= QUANTIZED if quantized else {}
    step.add("linear", x=i, residual=r, y=y, weights=packed, weight_scale=weight_scale, bias=bias, **a)
    found = step.run(y)[0]
    expected = reference.linear(x, residual, weight, weight_scale, bias, None, None, a)
    assert same_bits(found, expected)
    if quantized:
        multiplier = np.abs(floats(6, n)) + np.float32(0.1)
        changed = a | {"activation": "none", "x_zero_point": 7}
        tensors = {"weight_scale": weight_scale, "y_multiplier": multiplier}
        assert same_bits(
            _multiplied(isa, x, packed, tensors, changed),
            reference.linear(x, None, weight, weight_scale, None, multiplier, None, changed),
        )
    ending = {"bias": bias, "residual": residual, "activation": activation, "x_zero_point": zero_point}
    ending |= QUANTIZED if quantized else {}
    alone = native.linear(x, packed, scale, threads=2, **ending)
    assert same_bits(alone, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_pooling_and_norm(isa: str) -> None:
    x, mask = floats(1, B, L, H), some_mask(2)
    step = OneStep(isa)
    i, m = step.input(x), step.input(mask)
    pooled, y = step.output("f32", (B, H)), step.output("f32", (B, H))
    step.add("mean_pool", x=i, mask=m, y=pooled)
    step.add("l2_normalize", x=pooled, y=y, epsilon=1e-12)
    found_pooled, found = step.run(pooled, y)
    expected = reference.mean_pool(x, mask, {})
    assert same_bits(found_pooled, expected)
    assert same_bits(found, reference.l2_normalize(expected, {"epsilon": 1e-12}))
    witness = torch.nn.functional.normalize(torch.tensor(expected)).numpy()
    assert close(found, witness, H * EPSILON)


@pytest.mark.parametrize("isa", ISAS)
def test_elementwise(isa: str) -> None:
    a, b = floats(1, 7, 1001, spread=4.0), floats(2, 7, 1001)
    a[0, :4] = [-9e9, 9e9, -0.0, 5.0]
    step = OneStep(isa)
    i, j = step.input(a), step.input(b)
    outputs = [step.output(dtype, a.shape) for dtype in ("f32", "f32", "f32", "u8")]
    step.add("add", a=i, b=j, y=outputs[0])
    step.add("gelu", x=i, y=outputs[1])
    step.add("relu", x=i, y=outputs[2])
    step.add("quantize", x=i, y=outputs[3], **QUANTIZED)
    gelu, relu = activations.activate(a, "gelu"), activations.activate(a, "relu")
    expected = [a + b, gelu, relu, reference.quantize(a, QUANTIZED)]
    for found, wanted in zip(step.run(*outputs), expected, strict=True):
        assert same_bits(found, wanted)
    small = np.abs(a) <= 8
    witness = torch.nn.functional.gelu(torch.tensor(a)).numpy()
    # docs/arithmetic.md states 2e-6 up to 8; torch rounds the result once more.
    assert close(gelu[small], witness[small], 2e-6 + 8 * EPSILON)
