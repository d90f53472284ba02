"""The rules for functions that exporters spell in many ways, on random graphs, and their refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto

from graph_models import Builder, Reduced, assert_close, reduced
from openwork.graph import read, reduce

SEEDS = range(3)
LOWEST = float(np.finfo(np.float32).min)


def one(b: Builder, y: str, *shape: int) -> Reduced:
    """Reduce the graph of one float input `x` and one output."""
    return reduced(b.model(y=y), {"x": b.rng.standard_normal(shape).astype(np.float32)})


def written_out_norm(b: Builder, x: str, form: str, k: int, axis: int = -1) -> str:
    axes = b.integers(axis)
    d = b.add("Sub", x, b.add("ReduceMean", x, axes))
    square = b.add("Pow", d, b.number(2.0)) if form != "mul" else b.add("Mul", d, d)
    root = b.add("Sqrt", b.add("Add", b.add("ReduceMean", square, axes), b.number(1e-12)))
    y = b.add("Mul", b.add("Reciprocal", root), d) if form == "reciprocal" else b.add("Div", d, root)
    if form == "no affine":
        return y
    return b.add("Add", b.normal(k), b.add("Mul", y, b.normal(k)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["pow", "mul", "reciprocal", "no affine"])
def test_layer_norm_written_out(seed: int, form: str) -> None:
    b = Builder(np.random.default_rng(seed))
    k = int(b.rng.integers(2, 50))
    x = b.input("x", ["batch", "length", k])
    found = one(b, written_out_norm(b, x, form, k), 2, 3, k)
    assert found.operators == ["LayerNorm"]
    assert_close(found, 1e-5)


def test_a_norm_over_another_axis_stays() -> None:
    b = Builder(np.random.default_rng(0))
    found = one(b, written_out_norm(b, b.input("x", [2, 3, 4]), "no affine", 4, axis=1), 2, 3, 4)
    assert "LayerNorm" not in found.operators
    assert_close(found, 1e-5)


def test_layer_normalization_over_two_axes_stays() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", [2, 3, 4])
    found = one(b, b.add("LayerNormalization", x, b.normal(3, 4), b.normal(3, 4), axis=1), 2, 3, 4)
    assert found.operators == ["onnx.LayerNormalization"]
    assert found.left == ["LayerNormalization: layer norm: it normalizes over more than the last axis"]
    assert_close(found, 1e-5)


def gelu(b: Builder, x: str, form: str) -> str:
    half, one_, root = b.number(0.5), b.number(1.0), b.number(math.sqrt(2))
    if form == "operator":
        return b.add("Gelu", x)
    inner = b.add("Mul", x, b.number(math.sqrt(0.5))) if form == "mul" else b.add("Div", x, root)
    phi = b.add("Add", b.add("Erf", inner), one_)
    if form == "half first":
        return b.add("Mul", b.add("Mul", x, half), phi)
    if form == "half on phi":
        return b.add("Mul", x, b.add("Mul", half, phi))
    if form == "divided":
        return b.add("Div", b.add("Mul", phi, x), b.number(2.0))
    return b.add("Mul", b.add("Mul", x, phi), half)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["operator", "div", "mul", "half first", "half on phi", "divided"])
def test_gelu(seed: int, form: str) -> None:
    b = Builder(np.random.default_rng(seed))
    found = one(b, gelu(b, b.input("x", ["rows", 33]), form), 40, 33)
    assert found.operators == ["Gelu"]
    # docs/arithmetic.md: below 2e-6; ONNX Runtime's erf adds a few units in the last place.
    assert_close(found, 3e-6)


ROOT, CUBE = float(np.sqrt(2 / np.pi)), 0.044715


def tanh_gelu(b: Builder, x: str, form: str) -> str:
    """The tanh approximation of GELU as it is written: by the operator, by a power, by products, factored."""
    if form == "operator":
        return b.add("Gelu", x, approximate="tanh")
    square = b.add("Mul", x, x)
    if form == "factored":
        factor = b.add("Add", b.add("Mul", square, b.number(CUBE)), b.number(1.0))
        inside = b.add("Mul", b.add("Mul", x, b.number(ROOT)), factor)
    else:
        cube = b.add("Pow", x, b.number(3.0)) if form == "power" else b.add("Mul", square, x)
        inside = b.add("Mul", b.add("Add", x, b.add("Mul", cube, b.number(CUBE))), b.number(ROOT))
    shifted = b.add("Add", b.add("Tanh", inside), b.number(1.0))
    return b.add("Mul", b.add("Mul", x, b.number(0.5)), shifted)


@pytest.mark.parametrize("form", ["operator", "power", "products", "factored"])
def test_the_tanh_approximation_of_gelu(form: str) -> None:
    b = Builder(np.random.default_rng(0))
    found = one(b, tanh_gelu(b, b.input("x", ["rows", 33]), form), 40, 33)
    assert found.operators == ["GeluTanh"]
    assert_close(found, 3e-6)


def test_another_cubic_is_no_gelu() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 3])
    inside = b.add("Add", b.add("Mul", x, b.number(ROOT)), b.add("Pow", x, b.number(3.0)))
    shifted = b.add("Add", b.add("Tanh", inside), b.number(1.0))
    found = one(b, b.add("Mul", b.add("Mul", x, b.number(0.5)), shifted), 4, 3)
    assert "GeluTanh" not in found.operators


def test_erf_of_another_scale_is_no_gelu() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 3])
    phi = b.add("Add", b.add("Erf", b.add("Mul", x, b.number(0.7))), b.number(1.0))
    found = one(b, b.add("Mul", b.add("Mul", x, phi), b.number(0.5)), 4, 3)
    assert "Gelu" not in found.operators
    assert_close(found, 1e-5)


@pytest.mark.parametrize(
    ("bounds", "operators"),
    [((0.0,), ["Relu"]), ((0.0, 6.0), ["Clip"]), ((-0.5, 0.25), ["Clip"]), ((0.1,), ["Clip"])],
)
def test_clip_is_relu_only_from_zero_up(bounds: tuple[float, ...], operators: list[str]) -> None:
    b = Builder(np.random.default_rng(0))
    found = one(b, b.add("Clip", b.input("x", ["rows", 3]), *(b.number(v) for v in bounds)), 4, 3)
    assert found.operators == operators
    assert_close(found, 0)


ONE_OPERATOR: list[tuple[str, dict[str, float]]] = [
    ("LeakyRelu", {}),
    ("LeakyRelu", {"alpha": 0.25}),
    ("HardSigmoid", {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", {}),
    ("Sigmoid", {}),
    ("Tanh", {}),
]


@pytest.mark.parametrize(("op_type", "numbers"), ONE_OPERATOR)
def test_an_activation_of_one_operator(op_type: str, numbers: dict[str, float]) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.add("Mul", b.input("x", ["rows", 3]), b.number(4.0))
    found = one(b, b.add(op_type, x, **numbers), 40, 3)
    assert found.operators == ["Multiply", op_type]
    # The bound of tanh in docs/arithmetic.md, and a rounding of numbers up to 16 on either side.
    assert_close(found, 1e-6 + 16 * 2.0**-23)


@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize(
    ("gate", "numbers", "operators"),
    [
        ("Sigmoid", {}, ["Silu"]),
        ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, ["HardSwish"]),
        ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}, ["HardSigmoid", "a product"]),
    ],
)
def test_x_times_its_gate(
    gate: str, numbers: dict[str, float], operators: list[str], gate_first: bool
) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 3])
    gated = b.add(gate, x, **numbers)
    found = one(b, b.add("Mul", *((gated, x) if gate_first else (x, gated))), 40, 3)
    assert found.operators[0] == operators[0]
    assert len(found.operators) == len(operators)
    assert_close(found, 1e-6 + 4 * 2.0**-23)


def test_a_gate_of_another_value_is_no_silu() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 3])
    found = one(b, b.add("Mul", x, b.add("Sigmoid", b.add("Relu", x))), 4, 3)
    assert found.operators[:2] == ["Relu", "Sigmoid"]
    assert len(found.operators) == 3


def test_a_clip_with_ends_that_are_computed_stays() -> None:
    b = Builder(np.random.default_rng(0))
    x, low = b.input("x", ["rows", 3]), b.input("low", [])
    feeds = {"x": b.rng.standard_normal((4, 3)).astype(np.float32), "low": np.array(0.2, np.float32)}
    found = reduced(b.model(y=b.add("Clip", x, low)), feeds)
    assert found.operators == ["onnx.Clip"]
    assert found.left == ["Clip: clip: its ends are not two constants in their order"]
    assert_close(found, 0)


@pytest.mark.parametrize("ends", [("", "top"), ("low", "")])
def test_a_clip_with_one_end_has_the_other_beyond_all_numbers(ends: tuple[str, str]) -> None:
    b = Builder(np.random.default_rng(0))
    given = [b.number({"low": -0.3, "top": 0.4}[end]) if end else "" for end in ends]
    found = one(b, b.add("Clip", b.input("x", ["rows", 3]), *given), 40, 3)
    assert found.operators == ["Clip"]
    numbers = [found.node("Clip").attributes[name].value for name in ("alpha", "beta")]
    assert numbers == pytest.approx([-0.3, -LOWEST] if ends[0] else [LOWEST, 0.4], rel=1e-6)
    assert_close(found, 0)


def test_adds_of_other_shapes_stay() -> None:
    b = Builder(np.random.default_rng(0))
    x, r = b.input("x", ["rows", 3]), b.input("r", [1, 3])
    feeds = {"x": np.ones((4, 3), np.float32), "r": np.ones((1, 3), np.float32)}
    found = reduced(b.model(y=b.add("Add", x, r), z=b.add("Add", x, b.normal(4, 1))), feeds)
    assert found.operators == ["onnx.Add", "onnx.Add"]
    assert sorted(found.reasons) == [
        "its operands do not have the same known shape",
        "one of its operands is a constant",
    ]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (3,), (1, 3), (1, 1, 3)])
@pytest.mark.parametrize(
    ("op_type", "made"), [("Add", "Add"), ("Sub", "Add"), ("Mul", "Multiply"), ("Div", "Multiply")]
)
@pytest.mark.parametrize("first", [False, True])
def test_arithmetic_with_a_constant(op_type: str, made: str, shape: tuple[int, ...], first: bool) -> None:
    """A constant for all, or one for each channel, of no more axes than the value; `first`: before it."""
    b = Builder(np.random.default_rng(0))
    x, constant = b.input("x", ["rows", 3]), b.constant((b.rng.random(shape) + 0.5).astype(np.float32))
    found = one(b, b.add(op_type, *((constant, x) if first else (x, constant))), 4, 3)
    native = len(shape) <= 2 and not (first and op_type == "Div")
    negated = ["Multiply"] if first and op_type == "Sub" else []
    assert found.operators == ([*negated, made] if native else [f"onnx.{op_type}"])
    # Div multiplies by the reciprocal, which is rounded.
    assert_close(found, 3 * 2.0**-24)


@pytest.mark.parametrize(
    ("op_type", "numbers"), [("Add", [1, np.inf, 1]), ("Div", [1, 0, 1]), ("Mul", [1, np.nan, 1])]
)
def test_constants_that_are_not_finite_stay(op_type: str, numbers: list[float]) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.add(op_type, b.input("x", ["rows", 3]), b.constant(np.array(numbers, np.float32)))
    found = reduced(b.model(y=y), {"x": np.ones((2, 3), np.float32)})
    assert found.operators == [f"onnx.{op_type}"]
    assert "its constant holds numbers that are not finite" in found.left[0]


def test_nodes_that_change_nothing_go() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["rows", 3])
    y = b.add("Cast", b.add("Identity", x), to=TensorProto.FLOAT)
    y = b.add("Transpose", b.add("Add", y, b.number(0.0)), perm=[0, 1])
    y = b.add("Mul", b.add("Dropout", y), b.constant(np.ones(3, np.float32)))
    y = b.add("Slice", y, b.integers(0), b.integers(2**62), b.integers(0))
    y = b.add("Concat", b.add("Reshape", y, b.add("Shape", y)), axis=0)
    found = one(b, b.add("Relu", y), 4, 3)
    assert found.operators == ["Relu"]
    assert_close(found, 0)


def test_an_output_that_is_an_input_keeps_its_identity() -> None:
    b = Builder(np.random.default_rng(0))
    found = one(b, b.add("Identity", b.input("x", ["rows", 3])), 4, 3)
    assert found.operators == ["onnx.Identity"]
    assert found.reasons == ["it makes an output of the graph out of an input or of another output"]


def l2(b: Builder, x: str, form: str, axis: int = -1) -> str:
    if form == "operator":
        return b.add("LpNormalization", x, axis=axis, p=2)
    axes = b.integers(axis)
    if form in ("reduce", "expand", "max", "bare", "added"):
        norm = b.add("ReduceL2", x, axes)
    else:
        square = b.add("Mul", x, x) if form == "sqrt of mul" else b.add("Pow", x, b.number(2.0))
        total = (
            b.add("ReduceSumSquare", x, axes) if form == "sum square" else b.add("ReduceSum", square, axes)
        )
        norm = b.add("Sqrt", total)
    if form == "added":
        norm = b.add("Add", norm, b.number(1e-3))
    elif form == "max":
        norm = b.add("Max", norm, b.number(1e-12))
    elif form != "bare":
        norm = b.add("Clip", norm, b.number(1e-12))
    return b.add("Div", x, b.add("Expand", norm, b.add("Shape", x)) if form == "expand" else norm)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "form", ["operator", "reduce", "expand", "max", "bare", "sqrt of mul", "sqrt of pow", "sum square"]
)
def test_l2_normalize(seed: int, form: str) -> None:
    b = Builder(np.random.default_rng(seed))
    k = int(b.rng.integers(1, 50))
    found = one(b, l2(b, b.input("x", ["batch", k]), form), 5, k)
    assert found.operators == ["L2Normalize"]
    assert_close(found, 1e-6)


@pytest.mark.parametrize(
    ("form", "axis", "reason"),
    [
        ("added", -1, "it adds its epsilon to the norm; L2Normalize bounds the norm from below by it"),
        ("reduce", 0, "it normalizes over other axes than the last one alone, or drops that axis"),
        ("operator", 0, "it normalizes over other axes than the last one alone, or drops that axis"),
    ],
)
def test_other_norms_stay(form: str, axis: int, reason: str) -> None:
    b = Builder(np.random.default_rng(0))
    found = one(b, l2(b, b.input("x", ["batch", 5]), form, axis), 3, 5)
    assert "L2Normalize" not in found.operators
    assert reason in found.reasons
    assert_close(found, 1e-5)


def pooled(b: Builder, form: str) -> str:
    x, mask = b.input("x", ["batch", "length", 6]), b.input("mask", ["batch", "length"], TensorProto.INT64)
    weights = b.add("Unsqueeze", mask, b.integers(-1))
    if form == "expanded":
        weights = b.add("Expand", weights, b.add("Shape", x))
    weights = b.add("Cast", weights, to=TensorProto.FLOAT)
    axes = b.integers(1)
    reduce = "ReduceMean" if form == "means" else "ReduceSum"
    product = b.add("Mul", weights, x) if form == "weights first" else b.add("Mul", x, weights)
    total = b.add(reduce, product, axes, keepdims=0)
    count = b.add(
        reduce, b.add("Sub", weights, b.number(0.5)) if form == "other count" else weights, axes, keepdims=0
    )
    if form != "no clip":
        count = b.add("Clip", count, b.number(1e-9))
    return b.add("Div", total, count)


def pool_feeds(b: Builder) -> dict[str, np.ndarray]:
    mask = (b.rng.random((3, 5)) < 0.6).astype(np.int64)
    mask[:, 0] = 1
    return {"x": b.rng.standard_normal((3, 5, 6)).astype(np.float32), "mask": mask}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["plain", "expanded", "weights first", "means", "no clip"])
def test_mean_pool(seed: int, form: str) -> None:
    b = Builder(np.random.default_rng(seed))
    found = reduced(b.model(y=pooled(b, form)), pool_feeds(b))
    assert found.operators == ["MeanPool"]
    assert_close(found, 1e-6)


def test_a_mean_with_another_divisor_stays() -> None:
    b = Builder(np.random.default_rng(0))
    found = reduced(b.model(y=pooled(b, "other count")), pool_feeds(b))
    assert "MeanPool" not in found.operators
    assert "its divisor is not the number of positions that the same mask keeps" in found.reasons
    assert_close(found, 1e-5)


def test_a_mean_without_a_mask_stays() -> None:
    b = Builder(np.random.default_rng(0))
    x = b.input("x", ["batch", "length", 6])
    found = one(b, b.add("ReduceMean", x, b.integers(1), keepdims=0), 2, 3, 6)
    assert found.operators == ["onnx.ReduceMean"]
    assert found.reasons == ["it averages over all positions; MeanPool averages over those that a mask keeps"]


def embeddings(b: Builder, form: str) -> str:
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    word, table, kinds = b.normal(20, 6), b.normal(9, 6), b.normal(2, 6)
    length = b.add("Gather", b.add("Shape", ids), b.integers(1))
    if form == "gathered":
        numbers = b.constant(np.arange(9)[None])
        positions = b.add("Gather", table, b.add("Slice", numbers, b.integers(0), length, b.integers(1)))
    elif form == "range":
        positions = b.add("Range", b.constant(np.int64(0)), b.add("Squeeze", length), b.constant(np.int64(1)))
        positions = b.add("Gather", table, positions)
    else:
        start = b.integers(1 if form == "shifted" else 0)
        stop = b.add("Add", length, b.integers(1)) if form == "shifted" else length
        positions = b.add("Slice", table, start, stop, b.integers(0))
    total = b.add("Gather", word, ids)
    if form == "types":
        kind = b.input("types", ["batch", "length"], TensorProto.INT64)
        return b.add("Add", b.add("Add", total, b.add("Gather", kinds, kind)), positions)
    if form == "constant type":
        return b.add("Add", b.add("Add", total, positions), b.normal(6))
    if form == "type of zeros":
        zeros = b.add("ConstantOfShape", b.add("Shape", ids), value=zero())
        return b.add("Add", b.add("Add", b.add("Gather", kinds, zeros), total), positions)
    return total if form == "no positions" else b.add("Add", positions, total)


def zero() -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.zeros(1, np.int64))


def embedding_feeds(b: Builder, form: str) -> dict[str, np.ndarray]:
    feeds = {"ids": b.rng.integers(0, 20, (3, 7))}
    return {**feeds, "types": b.rng.integers(0, 2, (3, 7))} if form == "types" else feeds


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["sliced", "gathered", "range", "types", "constant type", "type of zeros"])
def test_embedding_sum(seed: int, form: str) -> None:
    b = Builder(np.random.default_rng(seed))
    found = reduced(b.model(y=embeddings(b, form)), embedding_feeds(b, form))
    assert found.operators == ["EmbeddingSum"]
    # Three summands below 5 in another order.
    assert_close(found, 1e-6)


def test_positions_that_do_not_begin_at_zero_are_refused() -> None:
    b = Builder(np.random.default_rng(0))
    found = reduced(b.model(y=embeddings(b, "shifted")), embedding_feeds(b, "shifted"))
    assert "EmbeddingSum" not in found.operators
    assert any(
        "neither rows of a table by an input nor the positions' rows" in reason for reason in found.reasons
    )
    assert_close(found, 1e-6)


def counted_positions(b: Builder, padding: int, first: int, masked: bool) -> str:
    """Words, and rows of positions that count the tokens which are no padding, as RoBERTa's are."""
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    kept = b.add("Not", b.add("Equal", ids, b.constant(np.int64(padding))))
    kept = b.add("Cast", kept, to=TensorProto.INT32)
    counts = b.add("CumSum", kept, b.constant(np.int64(1)))
    counts = b.add("Mul", counts, kept) if masked else counts
    places = b.add("Add", b.add("Cast", counts, to=TensorProto.INT64), b.constant(np.int64(first)))
    return b.add("Add", b.add("Gather", b.normal(20, 6), ids), b.add("Gather", b.normal(12, 6), places))


def test_positions_that_count_the_tokens() -> None:
    b = Builder(np.random.default_rng(0))
    ids = np.array([[5, 6, 1, 1, 1], [1, 4, 1, 9, 19], [1] * 5, [2, 3, 4, 5, 6]])
    found = reduced(b.model(y=counted_positions(b, 1, 1, masked=True)), {"ids": ids})
    assert found.operators == ["EmbeddingSum"]
    assert found.node("EmbeddingSum").attributes["padding_id"].value == 1
    assert_close(found, 1e-6)


@pytest.mark.parametrize(("padding", "first", "masked"), [(1, 2, True), (1, 1, False), (0, 3, True)])
def test_other_counts_stay(padding: int, first: int, masked: bool) -> None:
    b = Builder(np.random.default_rng(0))
    ids = np.array([[5, 6, 1, 0, 1]])
    found = reduced(b.model(y=counted_positions(b, padding, first, masked)), {"ids": ids})
    assert "EmbeddingSum" not in found.operators


def picked_types(b: Builder, types: np.ndarray) -> str:
    """Words, and types that are picked of a stored row by positions, which are counted from the words."""
    ids = b.input("ids", ["batch", "length"], TensorProto.INT64)
    spread = b.add(
        "Expand", b.constant(types), b.add("Concat", b.add("Shape", ids, end=1), b.integers(12), axis=0)
    )
    kept = b.add("Cast", b.add("Not", b.add("Equal", ids, b.constant(np.int64(1)))), to=TensorProto.INT64)
    places = b.add("Mul", b.add("CumSum", kept, b.constant(np.int64(1))), kept)
    kinds = b.add("Gather", b.normal(2, 6), b.add("GatherElements", spread, places, axis=1))
    positions = b.add("Slice", b.normal(12, 6), b.integers(0), b.add("Shape", ids, start=1), b.integers(0))
    return b.add("Add", b.add("Add", b.add("Gather", b.normal(20, 6), ids), kinds), positions)


@pytest.mark.parametrize("last", [0, 1])
def test_types_that_are_picked_of_equal_ones_are_a_row(last: int) -> None:
    """Of others, of which only the last differs, they stay what the model computes."""
    b, types = Builder(np.random.default_rng(0)), np.zeros((1, 12), np.int64)
    types[0, 5] = last
    found = reduced(
        b.model(y=picked_types(b, types)), {"ids": np.array([[5, 6, 7, 8, 9, 4], [1, 2, 1, 3, 1, 0]])}
    )
    assert (found.operators == ["EmbeddingSum"]) == (last == 0)
    assert_close(found, 1e-6)


@pytest.mark.parametrize("by", ["half", "list"])
def test_types_that_few_words_have_are_no_row(by: str) -> None:
    """Those above 13.5, and those that a stored list says."""
    b = Builder(np.random.default_rng(0))
    x = embeddings(b, "sliced")
    if by == "half":
        high = b.add("Greater", b.add("Cast", "ids", to=TensorProto.FLOAT), b.number(13.5))
        kinds = b.add("Cast", high, to=TensorProto.INT64)
    else:
        kinds = b.add("Gather", b.constant((np.arange(20) == 17).astype(np.int64)), "ids")
    y = b.add("Add", x, b.add("Gather", b.normal(2, 6), kinds))
    found = reduced(b.model(y=y), {"ids": np.array([[3, 17, 14], [19, 0, 13]])})
    assert_close(found, 1e-6)


def test_a_lone_embedding_is_a_lookup() -> None:
    b = Builder(np.random.default_rng(0))
    found = reduced(b.model(y=b.add("Relu", embeddings(b, "no positions"))), embedding_feeds(b, ""))
    assert found.operators == ["Gather", "Relu"]
    assert_close(found, 1e-6)


def test_rows_by_computed_indices_leave_the_words_a_lookup() -> None:
    """Types that are made of the words."""
    b = Builder(np.random.default_rng(0))
    x = embeddings(b, "no positions")
    kinds = b.add("Cast", b.add("Greater", "ids", b.integers(9)), to=TensorProto.INT64)
    found = reduced(
        b.model(y=b.add("Add", x, b.add("Gather", b.normal(2, 6), kinds))), embedding_feeds(b, "")
    )
    assert "Gather" in found.operators
    assert "onnx.Gather" in found.operators
    assert_close(found, 1e-6)


def test_rows_by_indices_that_nothing_computes_say_what_would() -> None:
    """Types that ONNX Runtime has no kernel to compute."""
    b = Builder(np.random.default_rng(0))
    x = embeddings(b, "no positions")
    sizes = b.add("Cast", b.add("Shape", "ids"), to=TensorProto.DOUBLE)
    zeros = b.add("Expand", b.add("Sub", sizes, sizes), b.add("Shape", "ids"))
    kinds = b.add("Cast", b.add("Erf", zeros), to=TensorProto.INT64)
    y = b.add("Add", x, b.add("Gather", b.normal(2, 6), kinds))
    refusals = reduce(read(b.model(y=y)))[2]
    reasons = [refusal.reason for refusal in refusals if refusal.rule == "embedding sum"]
    said = "the indices of its rows are computed by Cast 'Cast_"
    assert any(said in reason for reason in reasons), reasons
