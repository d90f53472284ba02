"""Native programs and contexts: what they refuse, with which words, and how they run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attention_samples import attended
from native_steps import add_step
from openwork import _native as native
from openwork.graph import reference
from openwork.graph.numerics.binary32 import quantize

ISAS = native.isas()
BATCH, LENGTH = -1, -2
H, HEADS, VOCABULARY, POSITIONS = 32, 4, 50, 24
X_SCALE, X_ZERO = 0.05, 128


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def floats(seed: int, *shape: int) -> NDArray[np.float32]:
    return rng(seed).standard_normal(shape).astype(np.float32)


def new_program() -> Any:
    return native.Program("scalar")


def f32(program: Any, *dims: int) -> int:
    return int(program.value("f32", list(dims)))


class TinyEncoder:
    """One encoder layer, natively and in the reference."""

    def __init__(self, seed: int = 7) -> None:
        self.word, self.position = floats(seed, VOCABULARY, H), floats(seed + 1, POSITIONS, H)
        self.gamma, self.beta = floats(seed + 2, H), floats(seed + 3, H)
        self.weight = rng(seed + 4).integers(-127, 128, (3 * H, H), np.int8)
        self.weight_scale = np.full(3 * H, 0.004, np.float32)
        self.bias = floats(seed + 5, 3 * H)
        self.dense = floats(seed + 6, H, H)

    def program(self, isa: str, max_rows: int = 20) -> Any:
        p = native.Program(isa)
        ids, mask = p.value("i64", [BATCH, LENGTH]), p.value("i64", [BATCH, LENGTH])
        x, y = f32(p, BATCH, LENGTH, H), f32(p, BATCH, LENGTH, H)
        q = p.value("u8", [BATCH, LENGTH, H])
        add_step(p, "embedding_sum", "embedding", ids=ids, y=x, word=self.word, position=self.position)
        norm = {"gamma": self.gamma, "beta": self.beta, "epsilon": 1e-5}
        add_step(p, "layer_norm", "norm", x=x, y=y, yq=q, y_scale=X_SCALE, y_zero_point=X_ZERO, **norm)
        qkv, context, out = f32(p, BATCH, LENGTH, 3 * H), f32(p, BATCH, LENGTH, H), f32(p, BATCH, LENGTH, H)
        packed = native.PackedWeights.pack(self.weight, "dense", isa)
        product = {"weight_scale": self.weight_scale, "bias": self.bias, "activation": "none"}
        product |= {"x_scale": X_SCALE, "x_zero_point": X_ZERO, "weights": [(packed, max_rows), (packed, -1)]}
        add_step(p, "linear", "qkv", x=q, y=qkv, **product)
        add_step(p, "attention", "attention", q=qkv, mask=mask, y=context, heads=HEADS, scale=0.35)
        dense = native.PackedWeights.pack(self.dense, "dense", isa)
        add_step(p, "linear", "dense", x=context, residual=y, y=out, weights=dense, activation="gelu")
        pooled, normal = f32(p, BATCH, H), f32(p, BATCH, H)
        add_step(p, "mean_pool", "pool", x=out, mask=mask, y=pooled)
        add_step(p, "l2_normalize", "unit", x=pooled, y=normal, epsilon=1e-12)
        p.finish([ids, mask], [normal, q])
        return p

    def expected(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> tuple[Any, Any]:
        x = reference.embedding_sum(ids, None, None, self.word, self.position, None, {})
        y, _ = reference.layer_norm(x, self.gamma, self.beta, None, {"epsilon": 1e-5})
        q = quantize(y, X_SCALE, X_ZERO)
        a = {"x_scale": X_SCALE, "x_zero_point": X_ZERO, "activation": "none"}
        qkv = reference.linear(q, None, self.weight, self.weight_scale, self.bias, None, None, a)
        context = attended(qkv, None, None, mask, {"heads": HEADS, "scale": 0.35})
        out = reference.linear_float(context, y, self.dense, None, {"activation": "gelu"})
        return reference.l2_normalize(reference.mean_pool(out, mask, {}), {"epsilon": 1e-12}), q

    @staticmethod
    def inputs(batch: int, length: int) -> list[NDArray[np.int64]]:
        generator = rng(batch * 100 + length)
        mask = np.ones((batch, length), np.int64)
        mask[0, length // 2 + 1 :] = 0
        return [generator.integers(0, VOCABULARY, (batch, length)), mask]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_encoder_layer_has_the_bits_of_the_reference(isa: str, threads: int) -> None:
    encoder = TinyEncoder()
    context = native.Context(encoder.program(isa), threads, 2)
    for batch, length in [(1, 1), (2, 24), (1, 7), (3, 16), (1, 1)]:
        inputs = encoder.inputs(batch, length)
        for found, expected in zip(context.run(inputs), encoder.expected(*inputs), strict=True):
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes(), (isa, threads, batch, length)


def test_contexts_run_at_the_same_time_and_share_a_program() -> None:
    encoder = TinyEncoder()
    program = encoder.program(ISAS[0])
    shared = native.Context(program, 2)
    contexts = [native.Context(program, 2), native.Context(program, 1), shared, shared]
    inputs = encoder.inputs(2, 11)
    expected = encoder.expected(*inputs)[0].tobytes()
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(50):
            if contexts[index].run(inputs)[0].tobytes() != expected:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(contexts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_outputs_outlive_the_context_and_later_runs() -> None:
    encoder = TinyEncoder()
    context = native.Context(encoder.program(ISAS[0]), 1)
    first = context.run(encoder.inputs(1, 9))[0]
    kept = first.copy()
    context.run(encoder.inputs(2, 9))
    del context
    assert np.array_equal(first, kept)


def test_the_profile_names_each_step_and_counts_runs() -> None:
    encoder = TinyEncoder()
    context = native.Context(encoder.program(ISAS[0]), 1)
    context.run(encoder.inputs(1, 9))
    assert all(calls == 0 and seconds == 0 for _, seconds, calls in context.profile())
    context.enable_profile(True)
    for _ in range(3):
        context.run(encoder.inputs(1, 9))
    names = [name for name, _, _ in context.profile()]
    assert names == ["embedding", "norm", "qkv", "attention", "dense", "pool", "unit"]
    assert all(calls == 3 and seconds > 0 for _, seconds, calls in context.profile())


def test_a_sparse_weight_of_its_row_bucket_runs() -> None:
    k, n = 64, 48
    weight = rng(1).integers(-127, 128, (n, k // 4, 4), np.int8)
    pruned = rng(2).permuted(np.tile(np.arange(4), (n, k // 4, 1)), axis=-1)[..., :2]
    np.put_along_axis(weight, pruned, 0, axis=-1)
    weight = weight.reshape(n, k)
    x, scale = rng(3).integers(0, 256, (30, k), np.uint8), np.full(n, 1e-3, np.float32)
    expected = reference.linear(
        x,
        None,
        weight,
        scale,
        None,
        None,
        None,
        {"x_scale": 1.0, "x_zero_point": 9, "activation": "none"},
    )
    for isa in ISAS:
        for form in [form.name for form in native.forms(isa) if form.sparse]:
            packed = native.PackedWeights.pack(weight, form, isa)
            assert (packed.form, packed.n, packed.k, packed.isa) == (form, n, k, isa)
            found = native.linear(x, packed, scale, threads=2, x_zero_point=9)
            assert found.tobytes() == expected.tobytes(), (isa, form)


def test_timing_gives_a_positive_number_for_each_weight_and_repeat() -> None:
    weights = [
        native.PackedWeights.pack(rng(i).integers(-127, 128, (32, 64), np.int8), "dense", ISAS[0])
        for i in (1, 2)
    ]
    seconds = native.time_linear(weights, 5, activation="gelu", threads=2, repeats=4)
    assert seconds.shape == (2, 4)
    assert (seconds > 0).all()


def test_the_machine_says_what_it_is() -> None:
    assert ISAS[-1] == "scalar"
    assert native.forms("scalar")[0].name == "dense"
    assert len(native.kernel_version()) == 16
    assert native.cpu_name()


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    return str(caught.value)


def embedding(p: Any) -> None:
    ids = p.value("i64", [2, 3])
    tables = {"word": np.ones((5, 8), np.float32), "position": np.ones((5, 7), np.float32)}
    add_step(p, "embedding_sum", "e", ids=ids, y=f32(p, 2, 3, 8), **tables)


def packed(n: int = 4, k: int = 8, isa: str = "scalar") -> Any:
    return native.PackedWeights.pack(np.ones((n, k), np.int8), "dense", isa)


def float_packed(n: int, k: int) -> Any:
    return native.PackedWeights.pack(np.ones((n, k), np.float32), "dense", "scalar")


def linear(p: Any, **changes: Any) -> None:
    arguments = {
        "x": p.value("u8", [2, 8]),
        "y": f32(p, 2, 4),
        "weights": packed(),
        "weight_scale": np.ones(4, np.float32),
        "x_scale": 1.0,
        "x_zero_point": 0,
        "activation": "none",
    }
    add_step(p, "linear", "l", **(arguments | changes))


FLOATS: dict[str, Any] = {"weight_scale": None, "x_scale": None, "x_zero_point": None}
"""What a product of floats does not have."""


def concat(p: Any, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "x": [p.value("u8", [2, 4]), p.value("u8", [2, 4])],
        "y": p.value("u8", [2, 8]),
        "axis": 1,
    }
    add_step(p, "concat", "c", **(arguments | changes))


def norm(p: Any, **changes: Any) -> None:
    x = f32(p, 2, 4)
    arguments: dict[str, Any] = {
        "x": x,
        "y": x,
        "gamma": np.ones(4, np.float32),
        "beta": np.ones(4, np.float32),
    }
    add_step(p, "layer_norm", "n", **(arguments | {"epsilon": 1e-5} | changes))


def attention(p: Any, width: int = 24, **changes: Any) -> None:
    arguments: dict[str, Any] = {"q": f32(p, 1, 2, width), "y": f32(p, 1, 2, 8), "heads": 2, "scale": 1.0}
    add_step(p, "attention", "a", **(arguments | changes))


def quantize_step(p: Any, **changes: Any) -> None:
    arguments: dict[str, Any] = {"x": f32(p, 2), "y": p.value("u8", [2]), "y_scale": 1.0, "y_zero_point": 0}
    add_step(p, "quantize", "q", **(arguments | changes))


def relu(p: Any, name: str, x: int, y: int) -> None:
    add_step(p, "relu", name, x=x, y=y)


NOT_FINITE = np.array([1, np.nan, 1, 1], np.float32)

REFUSALS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda p: p.value("f16", [1]), 'Expected a type out of u8, bf16, f32 and i64, found "f16".'),
    (lambda p: p.value("f32", []), "Expected a value with at least one dimension, found none."),
    (
        lambda p: p.value("f32", [0]),
        "Expected dimensions of at least 1, or -1 - s for the free dimension s below 64, found 0.",
    ),
    (
        lambda p: add_step(p, "gelu", "g", x=3, y=0),
        'Step "g" (gelu): expected x to be one of the 0 values, found 3.',
    ),
    (
        lambda p: relu(p, "r", p.value("u8", [2]), f32(p, 2)),
        'Step "r" (relu): expected x of type f32, found u8.',
    ),
    (
        lambda p: p.step("relu", "r", {"x": f32(p, 2), "z": 0}, {"y": f32(p, 2)}),
        'Step "r" (relu): expected nothing as z, because no such slot is used here; leave it out.',
    ),
    (
        lambda p: p.step("relu", "r", {}, {"y": f32(p, 2)}),
        'Step "r" (relu): expected an input x, found none.',
    ),
    (
        lambda p: p.step("relu", "r", {"x": f32(p, 2)}, {}),
        'Step "r" (relu): expected an output y, found none.',
    ),
    (
        lambda p: p.step("rectify", "r", {}, {}),
        f'Step "r": expected an operator out of {", ".join(native.steps())}, found "rectify".',
    ),
    (
        lambda p: p.step("relu", "r", {"x": f32(p, 2)}, {"y": f32(p, 2)}, {}, {"slope": np.zeros(2)}),
        'Step "r" (relu): expected the attribute slope to be an integer, a number, a text or a list of '
        "integers, found array([0., 0.]).",
    ),
    (
        lambda p: add_step(p, "add", "a", a=f32(p, 2, -3), b=f32(p, 2, 3), y=f32(p, 2, -3)),
        'Step "a" (add): expected b of shape [2, free 2], found [2, 3].',
    ),
    (
        lambda p: quantize_step(p, y_scale=0.0),
        'Step "q" (quantize): expected y_scale to be a positive finite number, found 0.000000.',
    ),
    (
        lambda p: quantize_step(p, y_zero_point=256),
        'Step "q" (quantize): expected y_zero_point from 0 to 255, found 256.',
    ),
    (
        lambda p: quantize_step(p, y_zero_point=0.5),
        'Step "q" (quantize): expected an integer as the attribute y_zero_point, found a number.',
    ),
    (
        lambda p: quantize_step(p, y_zero_point=None),
        'Step "q" (quantize): expected an integer as the attribute y_zero_point, found none.',
    ),
    (
        lambda p: quantize_step(p, x_scale=0.5),
        'Step "q" (quantize): expected no attribute x_scale, because nothing here reads it; leave it out.',
    ),
    (
        lambda p: quantize_step(p, bias=np.ones(2, np.float32)),
        'Step "q" (quantize): expected no tensor bias, because nothing here reads it; leave it out.',
    ),
    (
        lambda p: quantize_step(p, weights=packed()),
        'Step "q" (quantize): expected no packed weights, found 1.',
    ),
    (embedding, 'Step "e" (embedding_sum): expected position of shape [rows, 8], found [5, 7].'),
    (
        lambda p: norm(p, gamma=NOT_FINITE),
        'Step "n" (layer_norm): expected finite numbers in gamma, found nan at element 1.',
    ),
    (
        lambda p: norm(p, beta=np.ones(3, np.float32)),
        'Step "n" (layer_norm): expected beta of shape [4], found [3].',
    ),
    (
        lambda p: norm(p, gamma=None),
        'Step "n" (layer_norm): expected a tensor gamma, found none.',
    ),
    (
        lambda p: norm(p, gamma=np.ones(4)),
        'Step "n" (layer_norm): expected gamma of type u8, bf16 (as uint16), f32 or i64, found float64.',
    ),
    (
        lambda p: norm(p, gamma=np.ones(8, np.float32)[::2]),
        'Step "n" (layer_norm): expected gamma as a contiguous array of memory of the CPU, found another '
        "object; use numpy.ascontiguousarray.",
    ),
    (lambda p: norm(p, y=None), 'Step "n" (layer_norm): expected an output y, yq or both, found neither.'),
    (
        lambda p: norm(p, epsilon=0.0),
        'Step "n" (layer_norm): expected epsilon to be a positive finite number, found 0.000000.',
    ),
    (
        lambda p: linear(p, weights=packed(4, 9)),
        'Step "l" (linear): expected weights of shape [4, 8], found [4, 9].',
    ),
    (
        lambda p: linear(p, weights=[(packed(), 4)]),
        'Step "l" (linear): expected -1 as max_rows of the last weights, found 4.',
    ),
    (
        lambda p: linear(p, weights=[]),
        'Step "l" (linear): expected packed weights for any number of rows, found none.',
    ),
    (
        lambda p: linear(p, weights=[(packed(), 5), (packed(), 5), (packed(), -1)]),
        'Step "l" (linear): expected positive, increasing max_rows before the last, found 5 after 5.',
    ),
    (
        lambda p: linear(p, weight_scale=-np.ones(4, np.float32)),
        'Step "l" (linear): expected positive finite numbers as x_scale * weight_scale, found -1.000000 for '
        "a weight_scale of -1.000000.",
    ),
    (
        lambda p: linear(p, x_scale=3e38, weight_scale=np.full(4, 8, np.float32)),
        'Step "l" (linear): expected positive finite numbers as x_scale * weight_scale, found inf for a '
        "weight_scale of 8.000000.",
    ),
    (
        lambda p: linear(p, bias=NOT_FINITE),
        'Step "l" (linear): expected finite numbers in bias, found nan at element 1.',
    ),
    (
        lambda p: linear(p, x_zero_point=-1),
        'Step "l" (linear): expected x_zero_point from 0 to 255, found -1.',
    ),
    (
        lambda p: linear(p, activation="tan"),
        'Step "l" (linear): Expected one of the activations none, relu, relu6, clip, leaky_relu, '
        'hard_sigmoid, hard_swish, gelu, gelu_tanh, silu, sigmoid, tanh, found "tan".',
    ),
    (
        lambda p: linear(p, activation="clip", alpha=1.0, beta=-1.0),
        'Step "l" (linear): expected a clip whose low end, alpha, is at most its high end, beta, found '
        "1.000000 and -1.000000.",
    ),
    (
        lambda p: linear(p, y=f32(p, 2, 5)),
        'Step "l" (linear): expected y of shape [2, 4], found [2, 5].',
    ),
    (
        lambda p: linear(p, residual=p.value("i64", [2, 4])),
        'Step "l" (linear): expected residual of type f32, bf16 or u8, found i64.',
    ),
    (
        lambda p: linear(p, residual=p.value("u8", [2, 4]), residual_scale=0.0, residual_zero_point=0),
        'Step "l" (linear): expected residual_scale to be a positive finite number, found 0.000000.',
    ),
    (
        lambda p: linear(p, weights=float_packed(4, 8)),
        'Step "l" (linear): expected x of type f32 for weights of f32, found u8.',
    ),
    (
        lambda p: linear(p, weights=[(packed(), 5), (float_packed(4, 8), -1)]),
        'Step "l" (linear): expected weights of one type, found i8 and f32.',
    ),
    (
        lambda p: linear(p, weight_scale=None),
        'Step "l" (linear): expected a tensor weight_scale, found none.',
    ),
    (
        lambda p: linear(p, x=f32(p, 2, 8), weights=float_packed(4, 8), **(FLOATS | {"x_zero_point": 3})),
        'Step "l" (linear): expected no attribute x_zero_point, because nothing here reads it; leave it out.',
    ),
    (
        lambda p: linear(p, y_multiplier=np.ones(4, np.float32)),
        'Step "l" (linear): expected no tensor y_multiplier, because nothing here reads it; leave it out.',
    ),
    (
        lambda p: linear(p, activation_last=2),
        'Step "l" (linear): expected activation_last from 0 to 1, found 2.',
    ),
    (
        lambda p: linear(p, x=f32(p, 2, 8)),
        'Step "l" (linear): expected x of type u8 for weights of i8, found f32.',
    ),
    (
        lambda p: add_step(
            p, "dequantize", "d", x=p.value("u8", [2]), y=f32(p, 2), x_scale=-1.0, x_zero_point=0
        ),
        'Step "d" (dequantize): expected x_scale to be a positive finite number, found -1.000000.',
    ),
    (
        lambda p: add_step(p, "dequantize", "d", x=f32(p, 2), y=f32(p, 2)),
        'Step "d" (dequantize): expected x of type u8, found f32.',
    ),
    (
        lambda p: add_step(
            p, "lookup", "t", x=p.value("u8", [2]), y=p.value("u8", [2]), table=np.zeros(255, np.uint8)
        ),
        'Step "t" (lookup): expected table of shape [256], found [255].',
    ),
    (lambda p: concat(p, x=[]), 'Step "c" (concat): expected at least one input x, found none.'),
    (lambda p: concat(p, axis=2), 'Step "c" (concat): expected axis from 0 to 1, found 2.'),
    (lambda p: concat(p, axis=-1), 'Step "c" (concat): expected axis from 0 to 1, found -1.'),
    (
        lambda p: concat(p, x=[p.value("u8", [2, 4]), p.value("u8", [2, -1])]),
        'Step "c" (concat): expected x[1] with dimension 1 fixed, because it is concatenated, found '
        "[2, free 0].",
    ),
    (
        lambda p: concat(p, x=[p.value("u8", [2, 4]), p.value("u8", [3, 4])]),
        'Step "c" (concat): expected x[1] of shape [2, 4], found [3, 4].',
    ),
    (
        lambda p: concat(p, x=[p.value("u8", [2, 4]), p.value("u8", [8])]),
        'Step "c" (concat): expected x[1] of 2 dimensions as y has, found [8].',
    ),
    (
        lambda p: concat(p, x=[p.value("u8", [2, 4]), f32(p, 2, 4)]),
        'Step "c" (concat): expected x[1] of type u8, found f32.',
    ),
    (
        lambda p: concat(p, y=p.value("u8", [2, 9])),
        'Step "c" (concat): expected y with 8 in dimension 1, the sum of the inputs\', found [2, 9].',
    ),
    (
        lambda p: concat(p, tables=np.zeros((1, 256), np.uint8)),
        'Step "c" (concat): expected tables of shape [2, 256], found [1, 256].',
    ),
    (
        lambda p: concat(p, x=[f32(p, 2, 8)], y=f32(p, 2, 8), tables=np.zeros((1, 256), np.uint8)),
        'Step "c" (concat): expected tables only where x is u8, found them for f32.',
    ),
    (
        lambda p: attention(p, score_scale=1.0, score_zero_point=256),
        'Step "a" (attention): expected score_zero_point from 0 to 255, found 256.',
    ),
    (
        lambda p: attention(p, y=p.value("bf16", [1, 2, 8])),
        'Step "a" (attention): expected y of type f32 or u8, found bf16.',
    ),
    (
        lambda p: attention(p, heads=3),
        'Step "a" (attention): expected heads to divide the width 8, found 3.',
    ),
    (
        lambda p: attention(p, 8),
        'Step "a" (attention): expected q (holding q, k and v) of shape [1, 2, 24], found [1, 2, 8].',
    ),
    (
        lambda p: attention(p, 8, k=f32(p, 1, 2, 8)),
        'Step "a" (attention): expected k and v together or neither.',
    ),
    (
        lambda p: add_step(
            p, "mean_pool", "m", x=f32(p, 1, 2, 8), mask=p.value("i64", [2, 2]), y=f32(p, 1, 8)
        ),
        'Step "m" (mean_pool): expected mask of shape [1, 2], found [2, 2].',
    ),
    (lambda p: p.finish([], []), "Expected a program with at least one output, found none."),
    (lambda p: p.finish([4], []), "Expected each input of the program to be one of its 0 values, found 4."),
]


@pytest.mark.parametrize(("call", "message"), REFUSALS, ids=[m[:60] for _, m in REFUSALS])
def test_a_program_refuses(call: Callable[[Any], Any], message: str) -> None:
    assert refusal(lambda: call(new_program())) == message


def test_finish_refuses_values_that_nothing_makes() -> None:
    p = new_program()
    x, y, z = (f32(p, 2) for _ in range(3))
    relu(p, "late", y, z)
    relu(p, "early", x, y)
    assert refusal(lambda: p.finish([x], [z])) == (
        'Step "late" reads value 1, which is no input and no earlier step makes.'
    )
    assert refusal(lambda: p.finish([x, y], [z])) == 'Step "early" makes value 1, which is made before.'


def test_finish_refuses_what_has_no_meaning() -> None:
    p = new_program()
    x, y, lone = f32(p, 2), f32(p, 2), f32(p, -1)
    relu(p, "r", x, y)
    assert "value 2 is neither" in refusal(lambda: p.finish([x], [y]))
    assert refusal(lambda: p.finish([x, lone], [y, y])) == (
        "Expected each output of the program once, found value 1 twice."
    )
    assert "found the input value 0" in refusal(lambda: p.finish([x, lone], [x]))
    p.finish([x, lone], [y])
    assert refusal(lambda: relu(p, "r", x, y)) == (
        'Step "r" (relu): the program is finished; add all steps before finish().'
    )


def test_a_free_dimension_must_stand_in_an_input() -> None:
    p = new_program()
    ids, y = p.value("i64", [-2, 4]), f32(p, -2, 4, 8)
    tables = {"word": np.ones((5, 8), np.float32), "position": np.ones((5, 8), np.float32)}
    add_step(p, "embedding_sum", "e", ids=ids, y=y, **tables)
    assert refusal(lambda: p.finish([ids], [y])) == (
        "Expected every free dimension in the shape of an input, or of what a step makes that "
        "gives it a size; dimension 0 is in none."
    )


def test_a_context_refuses_bad_numbers_and_unfinished_programs() -> None:
    assert (
        refusal(lambda: native.Context(new_program(), 1))
        == "Expected a finished program; call finish() first."
    )
    program = TinyEncoder().program("scalar")
    assert refusal(lambda: native.Context(program, 0)) == "Expected 1 to 1024 threads, found 0."
    assert refusal(lambda: native.Context(program, 1, 0)) == "Expected max_plans of at least 1, found 0."


def test_a_run_refuses_inputs_that_do_not_fit() -> None:
    encoder = TinyEncoder()
    context = native.Context(encoder.program("scalar"), 1)
    ids, mask = encoder.inputs(2, 6)
    assert refusal(lambda: context.run([ids])) == "Expected 2 inputs, found 1."
    assert refusal(lambda: context.run([ids.astype(np.float32), mask])) == (
        "Expected input 0 of type i64, found f32."
    )
    assert refusal(lambda: context.run([ids.astype(np.int32), mask])) == (
        "Expected input 0 of type u8, bf16 (as uint16), f32 or i64, found int32."
    )
    shape = "of shape [free 0, free 1], no dimension 0 and each free dimension alike in all inputs, found"
    assert refusal(lambda: context.run([ids, mask[:, :5].copy()])) == f"Expected input 1 {shape} [2, 5]."
    assert refusal(lambda: context.run([ids[0], mask])) == f"Expected input 0 {shape} [6]."
    assert refusal(lambda: context.run([ids[:0], mask[:0]])) == f"Expected input 0 {shape} [0, 6]."


def test_a_run_refuses_ids_outside_of_their_table() -> None:
    encoder = TinyEncoder()
    context = native.Context(encoder.program("scalar"), 1)
    for wrong in (VOCABULARY, -1):
        ids, mask = encoder.inputs(2, 6)
        ids[1, 4] = wrong
        assert refusal(lambda ids=ids, mask=mask: context.run([ids, mask])) == (
            'Step "embedding" (embedding_sum): expected ids from 0 to 49 in input 0, because its table has '
            f"50 rows, found {wrong} at [1, 4]."
        )
    assert refusal(lambda: context.run(encoder.inputs(1, 25))) == (
        'Step "embedding" (embedding_sum): the length 25 exceeds the 24 rows of the table of positions.'
    )
    inputs = encoder.inputs(2, 6)
    assert context.run(inputs)[0].tobytes() == encoder.expected(*inputs)[0].tobytes()


def test_packing_takes_one_type_order_and_rank() -> None:
    pack = native.PackedWeights.pack
    assert refusal(lambda: pack(np.ones((4, 8), np.int32), "dense", "scalar")) == (
        "Expected weights of int8, of uint16 (BF16), or of float32."
    )
    assert "found 1 dimensions" in refusal(lambda: pack(np.ones(8, np.int8), "dense", "scalar"))
    with pytest.raises(TypeError):
        pack(np.ones((8, 4), np.int8).T, "dense", "scalar")


def test_packing_refuses_weights_that_are_not_finite() -> None:
    weight = np.ones((4, 8), np.float32)
    weight[2, 3] = np.inf
    assert refusal(lambda: native.PackedWeights.pack(weight, "dense", "scalar")) == (
        "Expected finite weights, found inf in output channel 2."
    )
    halves = np.full((4, 8), 0x3F80, np.uint16)
    halves[1, 7] = 0x7FC0
    assert refusal(lambda: native.PackedWeights.pack(halves, "dense", "scalar")) == (
        "Expected finite weights, found nan in output channel 1."
    )


def test_tables_are_borrowed_and_not_copied() -> None:
    p = new_program()
    ids, y = p.value("i64", [1, 2]), f32(p, 1, 2, 4)
    word, position = np.ones((3, 4), np.float32), np.zeros((2, 4), np.float32)
    add_step(p, "embedding_sum", "e", ids=ids, y=y, word=word, position=position)
    p.finish([ids], [y])
    word[2] = 7
    (found,) = native.Context(p, 1).run([np.array([[0, 2]])])
    assert found.tolist() == [[[1.0] * 4, [7.0] * 4]]


def test_numbers_of_numpy_are_attributes() -> None:
    p = new_program()
    x, y = f32(p, 2), p.value("u8", [2])
    add_step(p, "quantize", "q", x=x, y=y, y_scale=np.float32(0.5), y_zero_point=np.int64(3))
    p.finish([x], [y])
    assert native.Context(p, 1).run([np.array([0.5, 1.0], np.float32)])[0].tolist() == [4, 5]


def test_packing_refuses_forms_that_do_not_run_the_weights() -> None:
    pack = native.PackedWeights.pack
    assert "window7" in refusal(lambda: pack(np.ones((4, 8), np.int8), "window7", "scalar"))
    assert refusal(lambda: pack(np.ones((4, 8), np.float32), "window8", "scalar")) == (
        "The form window8 is not on scalar for f32."
    )
    assert "use a shuffled form" in refusal(
        lambda: pack(np.ones((4, 3, 3, 8), np.int8), "dense", "scalar", groups=2)
    )
