"""The attention rule: every way of writing heads, scale and mask, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto

import attention_bound
from graph_models import Builder, Reduced, assert_close, reduced

HEADS, SIZE = 3, 4
WIDTH = HEADS * SIZE
LOWEST = float(np.finfo(np.float32).min)
# The error of values below 4 where |q| |k| scale stays below 16, in texts of at most 9 tokens.
FIXED_POINT = 4 * attention_bound.relative(16, SIZE, 9)


@dataclass(frozen=True)
class Form:
    """How one attention is written."""

    scale: str = "mul"
    mask: str = "min"
    keys: str = "one transpose"
    target: str = "constant"
    guard: bool = False


def heads_of(b: Builder, x: str, target: str) -> str:
    if target == "constant":
        shape = b.integers(0, 0, HEADS, SIZE)
    else:
        parts = [b.add("Gather", b.add("Shape", x), b.integers(axis), axis=0) for axis in (0, 1)]
        last = (
            (b.integers(-1), b.integers(SIZE)) if target == "open" else (b.integers(HEADS), b.integers(SIZE))
        )
        shape = b.add("Concat", *parts, *last, axis=0)
    return b.add("Reshape", x, shape)


def keys_of(b: Builder, k: str, form: Form) -> str:
    split = heads_of(b, k, form.target)
    if form.keys == "one transpose":
        return b.add("Transpose", split, perm=[0, 2, 3, 1])
    moved = b.add("Transpose", split, perm=[0, 2, 1, 3])
    if form.keys == "two transposes":
        return b.add("Transpose", moved, perm=[0, 1, 3, 2])
    flat = b.add(
        "Reshape",
        moved,
        b.add(
            "Concat",
            b.integers(-1),
            b.add("Slice", b.add("Shape", moved), b.integers(-2), b.integers(9)),
            axis=0,
        ),
    )
    turned = b.add("Transpose", flat, perm=[0, 2, 1])
    sizes = b.add("Shape", moved)
    parts = [b.add("Gather", sizes, b.integers(axis), axis=0) for axis in (0, 1, 3, 2)]
    return b.add("Reshape", turned, b.add("Concat", *parts, axis=0))


def masked(b: Builder, scores: str, mask: str, form: str) -> str:
    if form == "none":
        return scores
    spread = b.add("Unsqueeze", mask, b.integers(1, 2))
    numbers = b.add("Cast", spread, to=TensorProto.FLOAT)
    if form in ("min", "-10000", "-10"):
        low = {"min": LOWEST, "-10000": -10000.0, "-10": -10.0}[form]
        return b.add("Add", scores, b.add("Mul", b.add("Sub", b.number(1.0), numbers), b.number(low)))
    kept = b.add("Cast", spread, to=TensorProto.BOOL)
    if form == "where bias":
        return b.add("Add", b.add("Where", kept, b.number(0.0), b.number(-np.inf)), scores)
    if form == "where equal":
        return b.add("Where", b.add("Equal", numbers, b.number(0.0)), b.number(LOWEST), scores)
    if form == "where not":
        return b.add("Where", kept, scores, b.number(LOWEST))
    if form == "expanded":
        shape = b.add("Shape", scores)
        sizes = [b.add("Gather", shape, b.integers(axis), axis=0) for axis in (0, 2, 3)]
        target = b.add("Concat", sizes[0], b.integers(1), sizes[1], sizes[2], axis=0)
        full = b.add("Expand", b.add("Sub", b.number(1.0), numbers), target)
        return b.add(
            "Add", scores, b.add("Where", b.add("Cast", full, to=TensorProto.BOOL), b.number(LOWEST), full)
        )
    assert form == "queries"
    return b.add(
        "Add",
        scores,
        b.add(
            "Mul",
            b.add("Sub", b.number(1.0), b.add("Transpose", numbers, perm=[0, 1, 3, 2])),
            b.number(LOWEST),
        ),
    )


def attention(b: Builder, form: Form) -> str:
    q, k, v = (b.input(name, ["batch", "length", WIDTH]) for name in "qkv")
    mask = b.input("mask", ["batch", "length"], TensorProto.INT64) if form.mask != "none" else ""
    left, right = b.add("Transpose", heads_of(b, q, form.target), perm=[0, 2, 1, 3]), keys_of(b, k, form)
    if form.scale == "both":
        root = b.number(SIZE**-0.25)
        left, right = b.add("Mul", left, root), b.add("Mul", right, root)
    elif form.scale == "queries":
        left = b.add("Div", left, b.number(math.sqrt(SIZE)))
    scores = b.add("MatMul", left, right)
    if form.scale == "mul":
        scores = b.add("Mul", scores, b.number(SIZE**-0.5))
    elif form.scale == "div":
        scores = b.add("Div", scores, b.number(math.sqrt(SIZE)))
    weights = b.add("Softmax", masked(b, scores, mask, form.mask), axis=-1)
    if form.guard:
        weights = b.add("Where", b.add("IsNaN", weights), b.number(0.0), weights)
    mixed = b.add("MatMul", weights, b.add("Transpose", heads_of(b, v, form.target), perm=[0, 2, 1, 3]))
    return b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(0, 0, WIDTH))


def feeds_of(b: Builder, form: Form) -> dict[str, np.ndarray]:
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
    feeds = {name: b.rng.standard_normal((2, 5, WIDTH)).astype(np.float32) for name in "qkv"}
    return feeds if form.mask == "none" else {**feeds, "mask": mask}


FORMS = [
    *(Form(scale=scale) for scale in ("mul", "div", "both", "queries", "none")),
    *(Form(mask=mask) for mask in ("none", "-10000", "where bias", "where equal", "where not", "expanded")),
    *(Form(keys=keys) for keys in ("two transposes", "flattened")),
    *(Form(target=target) for target in ("computed", "open")),
    Form(mask="where bias", guard=True),
    Form(scale="both", mask="where bias", keys="flattened", target="open", guard=True),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_attention_in_every_spelling(form: Form, seed: int) -> None:
    b = Builder(np.random.default_rng(seed))
    found = reduced(b.model(y=attention(b, form)), feeds_of(b, form))
    assert found.operators == ["Attention"]
    node = found.node("Attention")
    assert node.attributes["heads"].value == HEADS
    assert node.attributes["scale"].value == pytest.approx(
        1.0 if form.scale == "none" else SIZE**-0.5, rel=1e-6
    )
    assert (len(node.inputs) > 3 and node.inputs[3] is not None) == (form.mask != "none")
    assert_close(found, FIXED_POINT)


def test_a_number_for_each_query_is_refused() -> None:
    b = Builder(np.random.default_rng(0))
    form = Form(mask="queries")
    found = reduced(b.model(y=attention(b, form)), feeds_of(b, form))
    assert "Attention" not in found.operators
    assert any(said.endswith("its bias has one number for all keys") for said in found.reasons)


def test_other_masks_are_added_to_the_scores() -> None:
    """What neither keeps nor drops keys is a bias."""
    b = Builder(np.random.default_rng(0))
    form = Form(mask="-10")
    found = reduced(b.model(y=attention(b, form)), feeds_of(b, form))
    node = found.node("Attention")
    assert [value is not None for value in node.inputs] == [True, True, True, False, True]
    assert_close(found, FIXED_POINT)


def swapped(b: Builder, perm: list[int]) -> Reduced:
    """Attention whose values have their axes moved by another permutation."""
    q, k, v = (b.input(name, [2, 4, 4]) for name in "qkv")
    target = b.integers(0, 0, 4, 1)
    left = b.add("Transpose", b.add("Reshape", q, target), perm=[0, 2, 1, 3])
    right = b.add("Transpose", b.add("Reshape", k, target), perm=[0, 2, 3, 1])
    values = b.add("Transpose", b.add("Reshape", v, target), perm=perm)
    mixed = b.add("MatMul", b.add("Softmax", b.add("MatMul", left, right)), values)
    y = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(2, 4, 4))
    return reduced(
        b.model(y=y), {name: b.rng.standard_normal((2, 4, 4)).astype(np.float32) for name in "qkv"}
    )


def test_heads_split_another_way_are_refused() -> None:
    found = swapped(Builder(np.random.default_rng(0)), [0, 1, 2, 3])
    assert found.reasons == ["its values are not split into 4 heads as [batch, heads, length, size]"]
    assert_close(found, 1e-5)
    assert swapped(Builder(np.random.default_rng(0)), [0, 2, 1, 3]).operators == ["Attention"]


def projected(b: Builder, shared: bool, quantized: bool, multiplier: np.ndarray | None = None) -> Reduced:
    """Queries, keys and values as products of one input (or keys of another), into attention."""
    x = b.input("x", ["batch", "length", WIDTH])
    other = x if shared else b.input("other", ["batch", "length", WIDTH])
    parts = []
    for name, source in (("query", x), ("key", other), ("value", x)):
        values = b.normal(WIDTH, WIDTH, scale=0.3, name=f"self.{name}.weight")
        if quantized:
            source = b.round_trip(source, 0.05, 120)
            values = b.add(
                "DequantizeLinear",
                b.constant(b.rng.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8), f"layer.{name}.weight"),
                b.number(0.003),
            )
        parts.append(b.add("Add", b.add("MatMul", source, values), b.normal(WIDTH)))
    inner = [
        b.add("Transpose", heads_of(b, part, "constant"), perm=perm)
        for part, perm in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    ]
    mixed = b.add("MatMul", b.add("Softmax", b.add("MatMul", inner[0], inner[1])), inner[2])
    y = b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(0, 0, WIDTH))
    if multiplier is not None:
        y = b.add("Mul", b.constant(multiplier), y)
    feeds = {
        name: b.rng.standard_normal((2, 3, WIDTH)).astype(np.float32)
        for name in (["x"] if shared else ["x", "other"])
    }
    return reduced(b.model(y=y), feeds)


@pytest.mark.parametrize("quantized", [False, True])
def test_queries_keys_and_values_of_one_input_are_packed(quantized: bool) -> None:
    found = projected(Builder(np.random.default_rng(1)), True, quantized)
    linear = "Linear" if quantized else "Linear f32"
    assert found.operators == [*(["Quantize"] if quantized else []), linear, "Attention"]
    assert found.node("Linear").name == ("layer.qkv" if quantized else "self.qkv")
    # One input, the states q, k and v side by side: its slots k and v are empty.
    assert len(found.node("Attention").inputs) == 1
    # A tie in the quantizer of x moves one product by 0.05 * 0.003 * 127 = 0.02.
    assert_close(found, 0.02 if quantized else FIXED_POINT)


def test_queries_and_keys_of_two_inputs_are_not_packed() -> None:
    found = projected(Builder(np.random.default_rng(1)), False, False)
    assert sorted(found.operators) == ["Attention", "Linear f32", "Linear f32", "Linear f32"]
    assert found.reasons == ["queries, keys and values are not products of the same input of the same kind"]
    assert_close(found, FIXED_POINT)


@pytest.mark.parametrize("quantized", [False, True])
def test_a_multiplier_behind_attention_goes_into_the_values(quantized: bool) -> None:
    rng = np.random.default_rng(2)
    multiplier = rng.uniform(0.3, 3.0, WIDTH).astype(np.float32)
    found = projected(Builder(rng), True, quantized, multiplier)
    linear = "Linear" if quantized else "Linear f32"
    assert found.operators == [*(["Quantize"] if quantized else []), linear, "Attention"]
    # A tie in the quantizer of x moves one product by 0.05 * 0.003 * 127 = 0.02, times at most 3.
    assert_close(found, 0.06 if quantized else FIXED_POINT)


@pytest.mark.parametrize("multiplier", [np.full(WIDTH, -1, np.float32), np.full(1, 2, np.float32)])
def test_other_factors_behind_attention_are_a_step_of_their_own(multiplier: np.ndarray) -> None:
    found = projected(Builder(np.random.default_rng(2)), True, False, multiplier)
    assert found.operators == ["Linear f32", "Attention", "Multiply"]
    assert_close(found, FIXED_POINT)


def test_factors_behind_attention_that_differ_by_position_stay() -> None:
    multiplier = np.array([[1], [2], [0.5]], np.float32)
    found = projected(Builder(np.random.default_rng(2)), True, False, multiplier)
    assert found.operators == ["Linear f32", "Attention", "onnx.Mul"]
    assert "the constant does not have one float32 number for each channel" in found.left[0]
    assert_close(found, FIXED_POINT)


PARTS = ("product", "moved", "score", "scaled score", "probability", "result")


def rounded_attention(b: Builder, places: tuple[str, ...], masked_too: bool = False) -> str:
    """Attention with a quantizer in each of these places; `masked_too`: one behind the mask as well."""
    form, sources = Form(), [b.input(name, ["batch", "length", WIDTH]) for name in "qkv"]
    mask = b.input("mask", ["batch", "length"], TensorProto.INT64)

    def rounded(value: str, place: str, scale: float, point: int) -> str:
        return b.round_trip(value, scale, point) if place in places else value

    q, k, v = (rounded(value, "product", 0.03 + 0.002 * i, 120 + i) for i, value in enumerate(sources))
    left = b.add("Transpose", heads_of(b, q, form.target), perm=[0, 2, 1, 3])
    right, values = keys_of(b, k, form), b.add("Transpose", heads_of(b, v, form.target), perm=[0, 2, 1, 3])
    left, right, values = (rounded(value, "moved", 0.04, 128) for value in (left, right, values))
    scores = rounded(b.add("MatMul", left, right), "score", 0.1, 128)
    scores = rounded(b.add("Mul", scores, b.number(SIZE**-0.5)), "scaled score", 0.05, 100)
    scores = masked(b, scores, mask, form.mask)
    scores = b.round_trip(scores, 0.1, 128) if masked_too else scores
    weights = rounded(b.add("Softmax", scores, axis=-1), "probability", 0.9 / 255, 0)
    mixed = rounded(b.add("MatMul", weights, values), "result", 0.02, 130)
    joined = b.add("Transpose", mixed, perm=[0, 2, 1, 3])
    return b.add("Reshape", joined, b.integers(0, 0, WIDTH))


@pytest.mark.parametrize(
    "places", [*((part,) for part in PARTS), ("moved", "score", "probability", "result")]
)
def test_attention_with_quantizers_inside_is_native(places: tuple[str, ...]) -> None:
    b = Builder(np.random.default_rng(5))
    found = reduced(b.model(y=rounded_attention(b, places)), feeds_of(b, Form()))
    assert set(found.operators) <= {"Attention", "Quantize", "Dequantize"}
    node = found.node("Attention")
    assert ("score_scale" in node.attributes) == any("score" in place for place in places)
    assert ("probability_scale" in node.attributes) == ("probability" in places)
    if places == ("scaled score",):
        # Scores are rounded before the factor of 1/2, in steps twice as large.
        assert node.attributes["score_scale"].value == pytest.approx(0.1)
        assert node.attributes["score_zero_point"].value == 100
    # A tie of a score or of a weight moves the result by a step of it, of values below 4.
    step = max([0.1 * 4 if "score" in place else 0.04 for place in places])
    assert_close(found, max(step, FIXED_POINT))
    off = np.abs(found.after["y"] - found.before["y"])
    # Ties are rare: nearly all of the elements agree to what the fixed point or binary32 loses.
    assert np.quantile(off, 0.9) <= 4 * FIXED_POINT


def test_scores_that_are_rounded_behind_the_mask_are_left_to_onnx_runtime() -> None:
    """A quantizer lifts what the mask put far below: dropped keys count."""
    b = Builder(np.random.default_rng(5))
    found = reduced(b.model(y=rounded_attention(b, (), masked_too=True)), feeds_of(b, Form()))
    assert "onnx.Softmax" in found.operators
    reason = "its scores are rounded after the mask, which a quantizer does not keep low"
    assert reason in found.reasons
    assert_close(found, 1e-4)
