"""Every form of attention as a native step: the bits of its reference on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attention_samples import SLOTS, Problem, Sizes, problem, random_problem
from native_steps import add_step
from openwork import _native as native

Array = NDArray[Any]
ISAS = native.isas()
NAMES = {"float32": "f32", "int64": "i64"}
ROUNDINGS = {
    "score_scale": 0.05,
    "score_zero_point": 120,
    "probability_scale": 1 / 255,
    "probability_zero_point": 0,
}


def run(isa: str, p: Problem, threads: int = 1, presents: bool = True) -> list[Array]:
    """y, present_k, present_v of a program whose keys of the past and of all are free dimensions."""
    program, s = native.Program(isa), p.sizes
    free = {"past_k": [s.batch, s.groups, -1, s.size], "past_v": [s.batch, s.groups, -1, s.size]}
    given = {name: array for name, array in p.arrays.items() if array is not None}
    ids = {
        name: program.value(NAMES[array.dtype.name], free.get(name, list(array.shape)))
        for name, array in given.items()
    }
    dtype = "u8" if "y_scale" in p.attributes else "f32"
    made = {"y": program.value(dtype, [s.batch, s.queries, s.heads * s.size])}
    if presents:
        keys = s.keys if s.past is None else -2
        made |= {
            n: program.value("f32", [s.batch, s.groups, keys, s.size]) for n in ("present_k", "present_v")
        }
    add_step(program, "attention", "attention", **ids, **made, **p.attributes)
    program.finish(list(ids.values()), list(made.values()))
    return list(native.Context(program, threads).run(list(given.values())))


def agrees(p: Problem, isa: str, **how: Any) -> bool:
    found, expected = run(isa, p, **how), p.expected()
    return all(
        f.tobytes() == e.tobytes() and f.shape == e.shape for f, e in zip(found, expected, strict=False)
    )


def is_exact(p: Problem) -> bool:
    return bool(np.abs(p.expected()[0] - p.exact()).max() <= p.tolerance() < 0.1)


@pytest.mark.parametrize("seed", range(60))
def test_random_attention(seed: int) -> None:
    p = random_problem(seed)
    assert is_exact(p)
    for isa in ISAS:
        assert agrees(p, isa), isa
    assert agrees(p, ISAS[0], threads=2, presents=False)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("names", [("score",), ("probability",), ("score", "probability")])
@pytest.mark.parametrize("queries", [1, 3, 21])
def test_roundings_inside_the_general_forms(isa: str, queries: int, names: tuple[str, ...]) -> None:
    rounded = {name: value for name, value in ROUNDINGS.items() if name.split("_")[0] in names}
    sizes = Sizes(queries=queries, past=9, fresh=queries, groups=2)
    for causal in ({}, {"causal": 1}):
        for bias in ("", "hl"):
            assert agrees(problem(queries, sizes, bias=bias, mask="holes", **causal, **rounded), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("queries", [1, 20])
def test_results_as_bytes(isa: str, queries: int) -> None:
    sizes = Sizes(queries=queries, past=30, fresh=queries)
    assert agrees(problem(1, sizes, causal=1, y_scale=0.02, y_zero_point=100), isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("spread", "scale"), [(1e25, 1e-30), (1.0, -0.5)])
def test_numbers_beyond_fixed_point(isa: str, spread: float, scale: float) -> None:
    p = problem(3, Sizes(queries=18, fresh=37), bias="bl", causal=1)
    assert p.arrays["k"] is not None
    p.arrays["k"] *= np.float32(spread)
    p.attributes["scale"] = scale
    assert agrees(p, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("queries", [1, 18])
def test_a_bias_may_drop_keys_and_whole_rows(isa: str, queries: int) -> None:
    """As ONNX Runtime's Softmax has it: -inf drops a key, a row of nothing else has no number, and a row of
    the lowest number alone weighs all keys alike."""
    lowest = np.finfo(np.float32).min
    p = problem(4, Sizes(batch=3, queries=queries, fresh=37), bias="bhl")
    bias = p.arrays["bias"]
    assert bias is not None
    bias[0, :, :, ::3] = -np.inf
    bias[1] = lowest
    bias[2, 1:] = -np.inf
    found, expected = run(isa, p)[0], p.expected()[0]
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.abs(found[0] - p.exact()[0]).max() <= p.tolerance()
    v = p.heads()[2][1].mean(1).reshape(1, -1)
    assert np.abs(found[1] - v).max() <= p.tolerance()
    assert np.isnan(found[2, :, p.sizes.size :]).all()
    assert np.isfinite(found[2, :, : p.sizes.size]).all()


@pytest.mark.parametrize("isa", ISAS)
def test_queries_before_the_first_key_are_zero(isa: str) -> None:
    for groups, bias in ((4, ""), (2, "hl")):
        for names in ({}, ROUNDINGS):
            p = problem(5, Sizes(queries=40, fresh=11, groups=groups), bias=bias, causal=1, **names)
            assert agrees(p, isa)
            assert not p.expected()[0][:, :29].any()


@pytest.mark.parametrize("isa", ISAS)
def test_a_cache_that_grows_is_the_whole_text(isa: str) -> None:
    """Step by step, and the presents of one step the past of the next, from none on."""
    sizes = Sizes(queries=9, fresh=9, groups=2)
    whole = problem(6, sizes, causal=1)
    past = tuple(np.zeros((2, 2, 0, 8), np.float32) for _ in "kv")
    rows = []
    for at in range(9):
        part = Sizes(queries=1, past=at, fresh=1, groups=2)
        step = problem(6, part, causal=1)
        for name in "qkv":
            array = whole.arrays[name]
            assert array is not None
            step.arrays[name] = np.ascontiguousarray(array[:, at : at + 1])
        step.arrays["past_k"], step.arrays["past_v"] = past
        y, *past = run(isa, step)
        rows.append(y)
    assert np.abs(np.concatenate(rows, axis=1) - whole.exact()).max() <= 2 * whole.tolerance()
    assert all(np.array_equal(p, e) for p, e in zip(past, whole.expected()[1:], strict=True))


def refused(slot: str, shape: list[int]) -> None:
    p = problem(7, Sizes(past=3), mask="end", bias="h")
    p.arrays[slot] = np.zeros(shape, np.int64 if slot == "mask" else np.float32)
    run(ISAS[0], p)


@pytest.mark.parametrize(
    ("slot", "shape", "sentence"),
    [
        ("mask", [2, 7], "expected mask for 3 keys of the past and 5 new ones, found the shape"),
        ("bias", [1, 4, 1, 9], "expected bias for 3 keys of the past and 5 new ones, found the shape"),
        ("bias", [1, 3, 1, 8], "expected a bias that is broadcast to"),
        ("past_v", [2, 4, 2, 8], "each free dimension alike in all inputs"),
        ("v", [2, 4, 32], "expected v of shape"),
    ],
)
def test_sizes_that_disagree_are_refused(slot: str, shape: list[int], sentence: str) -> None:
    assert SLOTS
    with pytest.raises(ValueError, match=sentence):
        refused(slot, shape)


def test_a_dimension_that_something_else_reads_may_not_be_zero() -> None:
    program = native.Program(ISAS[0])
    past = [program.value("f32", [1, 1, -1, 4]) for _ in "kv"]
    q, y = program.value("f32", [1, 1, 4]), program.value("f32", [1, 1, 4])
    other, made = program.value("f32", [-1, 4]), program.value("f32", [-1, 4])
    add_step(program, "attention", "a", q=q, past_k=past[0], past_v=past[1], y=y, heads=1, scale=1.0)
    add_step(program, "relu", "r", x=other, y=made)
    program.finish([q, *past, other], [y, made])
    none = np.zeros((1, 1, 0, 4), np.float32)
    with pytest.raises(ValueError, match="no dimension 0"):
        native.Context(program, 1).run([np.zeros((1, 1, 4), np.float32), none, none, none[0, 0]])
