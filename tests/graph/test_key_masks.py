"""Key masks of every type and number of axes become native attention, and what is no key mask says why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

import attention_bound
from graph_models import Builder, Reduced, assert_close, reduced

HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE
LOWEST = float(np.finfo(np.float32).min)
# The error of values below 4 where |q| |k| scale stays below 32, in texts of at most 5 tokens.
FIXED_POINT = 4 * attention_bound.relative(32, SIZE, 5)
Spelling = Callable[[Builder, str, str], str]

TYPES = {
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
    TensorProto.BOOL: np.bool_,
    TensorProto.FLOAT: np.float32,
}
BINARY = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1], [0, 0, 0, 0, 1]])


def attended(b: Builder, mask: str, spelling: Spelling, x: str) -> str:
    """Attention of one value to itself."""
    split = [b.add("Reshape", x, b.integers(0, 0, HEADS, SIZE)) for _ in range(3)]
    perms = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (b.add("Transpose", part, perm=perm) for part, perm in zip(split, perms, strict=True))
    scores = spelling(b, b.add("MatMul", q, k), mask)
    mixed = b.add("MatMul", b.add("Softmax", scores, axis=-1), v)
    return b.add("Reshape", b.add("Transpose", mixed, perm=[0, 2, 1, 3]), b.integers(0, 0, WIDTH))


def masked(
    spelling: Spelling, dtype: int, content: np.ndarray, shape: list[int | str], layers: int = 1
) -> Reduced:
    b = Builder(np.random.default_rng(3))
    y = b.input("x", ["batch", "length", WIDTH])
    mask = b.input("mask", shape, dtype)
    for _ in range(layers):
        y = attended(b, mask, spelling, y)
    sizes = [content.shape[0], *(1 for _ in shape[1:-1]), content.shape[-1]]
    fed = content.astype(TYPES[dtype]).reshape(sizes if content.ndim == 2 else content.shape)
    x = b.rng.standard_normal((*content.shape[:1], content.shape[-1], WIDTH)).astype(np.float32)
    return reduced(b.model(y=y), {"x": x, "mask": fed})


def spread(b: Builder, mask: str) -> str:
    return b.add("Unsqueeze", mask, b.integers(1, 2))


def where_kept(b: Builder, scores: str, mask: str) -> str:
    kept = b.add("Cast", spread(b, mask), to=TensorProto.BOOL)
    return b.add("Add", scores, b.add("Where", kept, b.number(0.0), b.number(LOWEST)))


def where_padded(b: Builder, scores: str, mask: str) -> str:
    padded = b.add("Cast", spread(b, mask), to=TensorProto.BOOL)
    return b.add("Where", padded, b.number(-np.inf), scores)


def inverted(b: Builder, scores: str, mask: str) -> str:
    """1 - mask, and the lowest number where that is not 0."""
    rest = b.add("Sub", b.number(1.0), b.add("Cast", spread(b, mask), to=TensorProto.FLOAT))
    return b.add(
        "Add", scores, b.add("Where", b.add("Cast", rest, to=TensorProto.BOOL), b.number(LOWEST), rest)
    )


def scaled(b: Builder, scores: str, mask: str) -> str:
    rest = b.add("Sub", b.number(1.0), b.add("Cast", spread(b, mask), to=TensorProto.FLOAT))
    return b.add("Add", scores, b.add("Mul", rest, b.number(LOWEST)))


def above_half(b: Builder, scores: str, mask: str) -> str:
    kept = b.add("Greater", b.add("Cast", spread(b, mask), to=TensorProto.FLOAT), b.number(0.5))
    return b.add("Where", kept, scores, b.number(LOWEST))


def as_it_is(b: Builder, scores: str, mask: str) -> str:
    return b.add("Add", scores, mask)


def causal_too(b: Builder, scores: str, mask: str) -> str:
    lower = b.add("Trilu", b.add("Expand", b.number(1.0), b.add("Shape", scores)), upper=0)
    return scaled(
        b, b.add("Where", b.add("Cast", lower, to=TensorProto.BOOL), scores, b.number(LOWEST)), mask
    )


def assert_native(found: Reduced, nodes: list[str], layers: int = 1) -> None:
    """Whether nothing but the nodes that make the mask is left to ONNX, made once for all layers."""
    assert found.operators == [*(f"onnx.{node}" for node in nodes), *["Attention"] * layers]
    assert_close(found, FIXED_POINT * layers)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "nodes"),
    [
        (TensorProto.INT64, []),
        (TensorProto.INT32, ["Cast", "Cast"]),
        (TensorProto.INT8, ["Cast", "Cast"]),
        (TensorProto.UINT8, ["Cast", "Cast"]),
        (TensorProto.BOOL, ["Cast"]),
        (TensorProto.FLOAT, ["Cast", "Cast"]),
    ],
)
def test_a_mask_of_any_type_is_a_key_mask(dtype: int, nodes: list[str], layers: int) -> None:
    assert_native(masked(where_kept, dtype, BINARY, ["batch", "length"], layers), nodes, layers)


@pytest.mark.parametrize("shape", [["batch", 1, "length"], ["batch", 1, 1, "length"]])
@pytest.mark.parametrize(("dtype", "nodes"), [(TensorProto.INT64, []), (TensorProto.BOOL, ["Cast"])])
def test_a_mask_with_axes_of_one_is_a_key_mask(shape: list[int | str], dtype: int, nodes: list[str]) -> None:
    def kept(b: Builder, scores: str, mask: str) -> str:
        axes = mask if len(shape) == 4 else b.add("Unsqueeze", mask, b.integers(1))
        return b.add("Where", b.add("Cast", axes, to=TensorProto.BOOL), scores, b.number(LOWEST))

    assert_native(masked(kept, dtype, BINARY, shape), ["Reshape", *nodes])


@pytest.mark.parametrize(
    ("dtype", "nodes"),
    [
        (TensorProto.BOOL, ["Not", "Cast"]),
        (TensorProto.INT64, ["Equal", "Cast"]),
        (TensorProto.INT32, ["Cast", "Equal", "Cast"]),
        (TensorProto.FLOAT, ["Equal", "Cast"]),
    ],
)
def test_a_padding_mask_drops_where_it_is_true(dtype: int, nodes: list[str]) -> None:
    assert_native(masked(where_padded, dtype, 1 - BINARY, ["batch", "length"]), nodes)


@pytest.mark.parametrize(
    ("spelling", "content"),
    [
        (where_kept, [[0.5, 2, 0, np.nan], [1e-30, -1, 0, 0]]),
        (inverted, [[0.5, 2, 1, -1], [1, 1 - 2**-24, 1 + 2**-23, 0]]),
        (above_half, [[0.5, 2, 1, -1], [np.inf, 0.5 + 2**-24, 0.25, np.nan]]),
        (where_padded, [[0, 0, 2, np.nan], [1e-30, -1, 0, 0]]),
    ],
)
def test_a_float_mask_means_the_same_for_every_number(spelling: Spelling, content: list[list[float]]) -> None:
    found = masked(spelling, TensorProto.FLOAT, np.array(content, np.float32), ["batch", "length"])
    assert "Attention" in found.operators
    assert_close(found, FIXED_POINT)


def where_one(b: Builder, scores: str, mask: str) -> str:
    one = b.add("Equal", spread(b, mask), b.constant(np.array(1, np.int64)))
    return b.add("Where", one, scores, b.number(-np.inf))


def where_positive(b: Builder, scores: str, mask: str) -> str:
    positive = b.add("Greater", spread(b, mask), b.constant(np.array(0, np.int64)))
    return b.add("Where", positive, scores, b.number(-np.inf))


@pytest.mark.parametrize("spelling", [where_one, where_positive])
def test_an_int64_mask_keeps_what_its_comparison_keeps(spelling: Spelling) -> None:
    """Not whatever is not 0, though ones and zeros alone do not tell the two apart."""
    content = np.array([[1, 1, 2, 1, -1], [1, 2, -3, 2, 0], [0, 1, 0, 3, 1]])
    assert_close(masked(spelling, TensorProto.INT64, content, ["batch", "length"]), FIXED_POINT)


@pytest.mark.parametrize("spelling", [where_kept, inverted, above_half, where_padded])
def test_an_int32_mask_means_the_same_for_every_number(spelling: Spelling) -> None:
    content = np.array([[0, 1, 2, -1], [1, -7, 0, 2**31 - 1]])
    found = masked(spelling, TensorProto.INT32, content, ["batch", "length"])
    assert "Attention" in found.operators
    assert_close(found, FIXED_POINT)


def test_an_integer_mask_times_the_lowest_number_is_a_key_mask() -> None:
    found = masked(scaled, TensorProto.INT32, BINARY, ["batch", "length"])
    assert_native(found, ["Cast", "Greater", "Cast"])


def test_padding_is_found_by_its_token() -> None:
    """Other tokens than the padding's are kept, whatever their numbers."""

    def other(b: Builder, scores: str, ids: str) -> str:
        kept = b.add("Not", b.add("Equal", spread(b, ids), b.integers(7)))
        return b.add("Where", kept, scores, b.number(LOWEST))

    ids = np.array([[5, 0, 1, 7, 7], [2, 9, 6, 8, 7]])
    assert_native(masked(other, TensorProto.INT64, ids, ["batch", "length"]), ["Equal", "Not", "Cast"])


@pytest.mark.parametrize(
    ("spelling", "shape"),
    [
        (scaled, ["batch", "length"]),
        (as_it_is, ["batch", 1, 1, "length"]),
        (as_it_is, ["batch", 1, "length", "length"]),
    ],
)
def test_what_is_no_key_mask_is_added_to_the_scores(spelling: Spelling, shape: list[int | str]) -> None:
    content = BINARY[:, None, None] * np.ones((1, 1, 5, 1)) if shape[-2] == "length" else BINARY
    found = masked(spelling, TensorProto.FLOAT, content, shape)
    node = found.node("Attention")
    assert node.inputs[3] is None
    assert node.inputs[4] is not None
    assert_close(found, FIXED_POINT)


def test_a_causal_mask_beside_one_of_keys_is_an_attribute() -> None:
    # Each query sees its first key: where nothing is seen, the lowest number twice is another thing than 0.
    content = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]])
    found = masked(causal_too, TensorProto.INT64, content, ["batch", "length"])
    assert found.node("Attention").attributes["causal"].value == 1
    assert_native(found, [])


@pytest.mark.parametrize("scaled_with_it", [False, True])
def test_a_bias_that_is_no_bias_says_why(scaled_with_it: bool) -> None:
    """What is applied to the scores and both products say the same; no general sentence stands beside it."""

    def biased(b: Builder, scores: str, mask: str) -> str:
        if scaled_with_it:
            return b.add("Mul", b.add("Add", scores, mask), b.number(0.5))
        return b.add("Add", b.add("Add", scores, mask), b.add("Mul", mask, mask))

    reason = "it is scaled with the scores" if scaled_with_it else "it has two biases"
    found = masked(biased, TensorProto.FLOAT, BINARY, ["batch", 1, 1, "length"])
    assert "Attention" not in found.operators
    assert any(reason in said for said in found.reasons), found.reasons
    left = [said for said in found.left if reason in said]
    assert [said.split(":")[0] for said in left].count("MatMul") == 2
    assert "Softmax" in {said.split(":")[0] for said in left}
    assert_close(found, 1e-5)


def test_a_bias_of_positions_beside_a_key_mask() -> None:

    def biased(b: Builder, scores: str, mask: str) -> str:
        length = b.add("Gather", b.add("Shape", mask), b.integers(1), axis=0)
        ends = b.add("Concat", length, length, axis=0)
        table = b.add("Slice", b.normal(1, HEADS, 9, 9), b.integers(0, 0), ends, b.integers(2, 3))
        bias = b.add("Expand", table, b.add("Shape", scores))
        return where_kept(b, b.add("Add", scores, bias), mask)

    found = masked(biased, TensorProto.INT64, BINARY, ["batch", "length"])
    node = found.node("Attention")
    assert node.inputs[3] is not None
    assert node.inputs[4] is not None
    assert_close(found, FIXED_POINT)


def test_one_mask_for_the_whole_batch_is_refused() -> None:
    found = masked(where_kept, TensorProto.BOOL, BINARY[:1], [1, "length"])
    assert "its mask is [1, 'length'], its keys are ['batch', 'length']" in found.reasons


def test_where_a_mask_keeps_nothing_attention_gives_zero_for_every_type() -> None:
    content = np.array([[0, 0, 0], [1, 1, 0]])
    for dtype in TYPES:
        found = masked(where_kept, dtype, content, ["batch", "length"])
        assert not found.after["y"][0].any()
        assert found.after["y"][1].any()


def pooled(dtype: int, spelling: str = "cast") -> Reduced:
    b = Builder(np.random.default_rng(4))
    x, mask = b.input("x", ["batch", "length", WIDTH]), b.input("mask", ["batch", "length"], dtype)
    if spelling == "padded":
        mask = b.add("Not", mask)
    weights = b.add("Cast", b.add("Unsqueeze", mask, b.integers(2)), to=TensorProto.FLOAT)
    total = b.add("ReduceSum", b.add("Mul", b.add("Relu", x), weights), b.integers(1), keepdims=0)
    count = b.add("Clip", b.add("ReduceSum", weights, b.integers(1), keepdims=0), b.number(1e-9))
    content = BINARY[:2].astype(TYPES[dtype])
    feeds = {"x": b.rng.standard_normal((2, 5, WIDTH)).astype(np.float32), "mask": content}
    return reduced(b.model(y=b.add("Div", total, count)), feeds)


@pytest.mark.parametrize(
    ("dtype", "spelling", "nodes"),
    [
        (TensorProto.INT64, "cast", []),
        (TensorProto.INT32, "cast", ["Cast", "Cast"]),
        (TensorProto.BOOL, "cast", ["Cast"]),
        (TensorProto.BOOL, "padded", ["Not", "Cast"]),
    ],
)
def test_the_mean_over_the_positions_that_a_mask_of_any_type_keeps(
    dtype: int, spelling: str, nodes: list[str]
) -> None:
    found = pooled(dtype, spelling)
    assert sorted(found.operators) == sorted(["Relu", "MeanPool", *(f"onnx.{node}" for node in nodes)])
    assert_close(found, 1e-6)


def test_a_float_mask_weighs_positions() -> None:
    found = pooled(TensorProto.FLOAT)
    assert "MeanPool" not in found.operators
    assert any("in which other numbers than 0 and 1 neither keep" in said for said in found.reasons)
    assert_close(found, 1e-6)
