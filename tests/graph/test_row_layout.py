"""Turns between batch first and length first: what works row by row reads its rows in any order."""

from __future__ import annotations

import numpy as np
import pytest

from graph_models import Builder, Reduced, assert_close, reduced

TURN = [1, 0, 2]


def turned(b: Builder, value: str, perm: list[int] = TURN) -> str:
    return b.add("Transpose", value, perm=perm)


def norm(b: Builder, value: str) -> str:
    return b.add("LayerNormalization", value, b.normal(4), b.normal(4), axis=-1)


def result(b: Builder, y: str, *names: str) -> Reduced:
    feeds = {name: b.rng.standard_normal((2, 3, 4)).astype(np.float32) for name in names}
    return reduced(b.model(y=y), feeds)


def test_a_turn_and_the_one_that_turns_back_go() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", "length", 4])
    found = result(b, turned(b, b.add("Relu", norm(b, turned(b, x)))), "x")
    assert found.operators == ["LayerNorm", "Relu"]
    assert_close(found, 1e-5)


def test_residuals_are_turned_with_the_rest() -> None:
    """Two blocks whose residuals stay length first, around norms that read them batch first."""
    b = Builder(np.random.default_rng(0))
    states = turned(b, b.input("x", ["batch", "length", 4]))
    for _ in range(2):
        inner = b.add("Softmax", b.add("Tanh", norm(b, turned(b, states))), axis=1)
        states = b.add("Add", states, turned(b, inner))
        states = b.add("Add", states, b.add("MatMul", norm(b, states), b.normal(4, 4)))
    found = result(b, turned(b, states), "x")
    assert "onnx.Transpose" not in found.operators
    assert found.operators.count("onnx.Softmax") == 2
    # Numbers below 50 after two blocks of a few roundings each.
    assert_close(found, 1e-4)


@pytest.mark.parametrize("back", [[2, 0, 1], None])
def test_a_turn_that_nothing_turns_back_stays_where_it_is(back: list[int] | None) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.add("Relu", turned(b, b.input("x", ["batch", "length", 4])))
    found = result(b, y if back is None else turned(b, y, back), "x")
    assert found.operators == ["onnx.Transpose", "Relu", *(["onnx.Transpose"] if back else [])]
    assert_close(found, 0)


def test_operands_that_are_turned_differently_stay() -> None:
    b = Builder(np.random.default_rng(0))
    x, other = b.input("x", [2, 3, 4]), b.input("other", [3, 2, 4])
    total = turned(b, b.add("Add", turned(b, x), b.add("Relu", other)))
    found = reduced(
        b.model(y=total),
        {"x": np.ones((2, 3, 4), np.float32), "other": b.rng.standard_normal((3, 2, 4)).astype(np.float32)},
    )
    assert found.operators.count("onnx.Transpose") == 2
    assert_close(found, 0)


def test_a_turn_that_others_read_goes_where_fewer_are_left() -> None:
    """The turned value is an output too, so its turn stays; the two behind the norm go."""
    b = Builder(np.random.default_rng(0))
    first = turned(b, b.input("x", ["batch", "length", 4]))
    y = turned(b, norm(b, first))
    z = b.add("Relu", first)
    found = reduced(b.model(y=y, z=z), {"x": b.rng.standard_normal((2, 3, 4)).astype(np.float32)})
    assert sorted(found.operators) == ["LayerNorm", "Relu", "onnx.Transpose"]
    assert_close(found, 1e-5)


def test_four_axes_turn_too() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", [2, 3, 5, 4])
    y = turned(b, b.add("Relu", turned(b, x, [1, 2, 0, 3])), [2, 0, 1, 3])
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((2, 3, 5, 4)).astype(np.float32)})
    assert found.operators == ["Relu"]
    assert_close(found, 0)
