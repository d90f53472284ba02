"""Tactics and problems as values: their text form goes out and comes back, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork import _native
from openwork.engine.problem import ELEMENTS, Convolution, MatrixProduct, Problem, Tactic


@pytest.mark.parametrize(
    ("text", "tactic"),
    [
        ("dense", Tactic()),
        ("window8packed", Tactic("window8packed")),
        ("f32:dense", Tactic("dense", "f32")),
        ("bf16:window16", Tactic("window16", "bf16")),
        ("window64/row", Tactic("window64", "i8", "row")),
        ("f32:blocks4/patch", Tactic("blocks4", "f32", "patch")),
    ],
)
def test_the_text_of_a_tactic(text: str, tactic: Tactic) -> None:
    assert Tactic.parse(text) == tactic
    assert str(tactic) == text


@given(
    st.from_regex(r"dense|depthwise|(window|blocks)[1-9][0-9]?(x[1-9])?(packed)?", fullmatch=True),
    st.sampled_from(ELEMENTS),
    st.sampled_from(["", "tap", "row", "patch"]),
)
def test_any_tactic_comes_back(form: str, element: str, run: str) -> None:
    tactic = Tactic(form, element, run)
    assert Tactic.parse(str(tactic)) == tactic


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Dense",
        "f16:dense",
        "f32:",
        "dense/",
        "a b",
        "dense/row/row",
        "i8:f32:a",
        "dense\n",
        "zzz",
        "window",
        "dense/zzz",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a tactic; write it as"):
        Tactic.parse(text)


def test_every_form_of_the_kernels_is_a_tactic() -> None:
    for isa in _native.isas():
        for element in ELEMENTS:
            for form in _native.forms(isa, element):
                tactic = Tactic(form.name, element)
                assert Tactic.parse(str(tactic)) == tactic


def test_the_text_of_a_problem() -> None:
    problem = Problem(MatrixProduct(96, 64), "i8", "relu", "u8", "2:4")
    assert str(problem) == "96x64 2:4 relu u8"
    assert str(Problem(MatrixProduct(8, 4), "f32", "none", "f32")) == "f32 8x4 dense none f32"
    assert problem.on((1, 7, 7)) == problem


def test_the_text_of_a_convolution() -> None:
    plain = Convolution(64, 32, (3, 3), image=(1, 14, 14))
    assert str(plain) == "64x32 kernel 3x3 on 1x14x14"
    whole = Convolution(64, 8, (3, 5), 8, (2, 1), (1, 2), (1, 0, 1, 2))
    text = "64x8 kernel 3x5 groups 8 strides 2x1 dilations 1x2 pads 1x0x1x2 on 2x9x9"
    assert str(Problem(whole, "i8", "relu", "u8").on((2, 9, 9))) == f"{text} dense relu u8"
    assert plain.k == 288
