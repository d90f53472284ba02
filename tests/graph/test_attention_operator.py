"""ONNX's own Attention, of opset 23: native in every form that the native operator has."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import attention_bound
from graph_models import Reduced, assert_close, reduced

B, L, P, HEADS, SIZE = 2, 5, 3, 4, 6
# Of values below 4 where |q| |k| scale stays below 16, in texts of at most 8 tokens.
FIXED_POINT = 4 * attention_bound.relative(16, SIZE, 8)
AXES = {"y": list("abc"), "present_k": list("defg"), "present_v": list("defg")}
INPUTS = ("q", "k", "v", "mask", "past_k", "past_v")


def made(shapes: dict[str, list[int | str]], boolean: bool = False, **attributes: Any) -> Reduced:
    """One Attention of inputs of these shapes, in a batch of B."""
    rng = np.random.default_rng(0)
    sizes = {"batch": B, "length": L, "past": P, "total": L + P, "source": 7}
    feeds: dict[str, Any] = {}
    for name, shape in shapes.items():
        array = rng.standard_normal([sizes.get(str(d), d) for d in shape]).astype(np.float32)
        feeds[name] = array > -1 if boolean and name == "mask" else array
    types = {
        name: TensorProto.BOOL if array.dtype == np.bool_ else TensorProto.FLOAT
        for name, array in feeds.items()
    }
    outputs = ["y", "present_k", "present_v"] if "past_k" in shapes else ["y"]
    given = [name if name in shapes else "" for name in INPUTS]
    node = helper.make_node("Attention", given, outputs, name="attention", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, types[name], shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, AXES[name]) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model)
    return reduced(model, feeds)


def states(length: str = "length", heads: int = HEADS) -> list[int | str]:
    return ["batch", length, heads * SIZE]


THREE = {"q": states(), "k": states(), "v": states()}
NUMBERS = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
PAST = {name: ["batch", HEADS, "past", SIZE] for name in ("past_k", "past_v")}


@pytest.mark.parametrize("causal", [0, 1])
def test_three_axes(causal: int) -> None:
    found = made(THREE, is_causal=causal, **NUMBERS)
    assert found.operators == ["Attention"]
    assert "causal" in found.node("Attention").attributes or not causal
    assert_close(found, FIXED_POINT)


@pytest.mark.parametrize("causal", [0, 1])
def test_a_past_and_what_is_kept_for_the_next_run(causal: int) -> None:
    found = made({**THREE, **PAST}, is_causal=causal, scale=0.5, **NUMBERS)
    assert found.operators == ["Attention"]
    assert found.node("Attention").attributes["scale"].value == 0.5
    assert_close(found, FIXED_POINT)


def test_keys_of_another_length() -> None:
    found = made({"q": states(), "k": states("source"), "v": states("source")}, **NUMBERS)
    assert found.operators == ["Attention"]
    assert_close(found, FIXED_POINT)


def test_heads_that_share_keys() -> None:
    shared = {"q": states(), "k": states(heads=2), "v": states(heads=2)}
    found = made(
        {**shared, **{name: ["batch", 2, "past", SIZE] for name in PAST}}, q_num_heads=4, kv_num_heads=2
    )
    assert found.operators == ["Attention"]
    assert found.node("Attention").attributes["kv_heads"].value == 2
    assert_close(found, FIXED_POINT)


def test_a_mask_of_booleans_that_may_leave_a_query_nothing_stays_with_its_reason() -> None:
    found = made({**THREE, "mask": ["length", "total"], **PAST}, True, **NUMBERS)
    assert "Attention" not in found.operators
    assert "its bias may leave a query nothing, where its weights are 0" in found.reasons
    assert_close(found, FIXED_POINT)


@pytest.mark.parametrize("shape", [["batch", 1, "length", "total"], ["length", "total"]])
def test_masks_of_numbers_are_added(shape: list[int | str]) -> None:
    found = made({**THREE, "mask": shape, **PAST}, **NUMBERS)
    node = found.node("Attention")
    assert node.inputs[3] is None
    assert node.inputs[4] is not None
    assert_close(found, FIXED_POINT)


def test_what_has_no_native_form_stays_with_its_reason() -> None:
    found = made(THREE, softcap=2.0, **NUMBERS)
    assert found.operators == ["onnx.Attention"]
    assert any("caps its scores softly" in said for said in found.reasons)
