"""Single operators that come last: shapes, cuts, softmax, moves of channels, between native steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import openwork
from graph_models import Builder, reduced
from image_models import agrees, fed, quantized, quantized_weight

Attributes = dict[str, Any]


def builder(opset: int = 20) -> Builder:
    return Builder(np.random.default_rng(7), opset)


def layer(b: Builder, shape: tuple[int, ...]) -> tuple[str, dict[str, np.ndarray]]:
    """A native step in front, since what stands among nodes of ONNX is left to them."""
    x = b.input("x", ["n", *shape[1:]])
    return b.add("Relu", x), {"x": b.rng.standard_normal(shape).astype(np.float32)}


SHAPES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], Attributes]] = {
    "Flatten": ("Flatten", (2, 8, 3, 4), (), {}),
    "Flatten behind the second axis": ("Flatten", (2, 8, 3, 4), (), {"axis": 2}),
    "Reshape that keeps the batch": ("Reshape", (2, 8, 3, 4), (0, 4, -1), {}),
    "Reshape of the batch": ("Reshape", (2, 8, 3, 4), (-1, 12), {}),
    "Squeeze": ("Squeeze", (2, 8, 1, 1), (2, 3), {}),
    "Unsqueeze": ("Unsqueeze", (2, 8), (-1, 1), {}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_change_of_shape_is_a_view(name: str, tmp_path: Path) -> None:
    op, shape, numbers, attributes = SHAPES[name]
    b = builder()
    x, feeds = layer(b, shape)
    y = b.add(op, x, *([b.integers(*numbers)] if numbers else []), **attributes)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["relu", "reshape"]


def test_a_quantizer_behind_a_change_of_shape_comes_first(tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 2, 8, 3, 3)
    weight, _ = quantized_weight(b, (16, 8, 1, 1), name="c.weight")
    head, _ = quantized_weight(b, (5, 16 * 9), name="head.weight")
    y = b.add("Flatten", b.add("Relu", b.add("Conv", x, weight, b.normal(16))))
    y = b.add("Gemm", b.round_trip(y, 0.02, 0), head, b.normal(5), transB=1)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["to_channels_last", "conv", "to_channels_first", "reshape", "linear"]


def test_a_shape_with_several_free_sizes_stays() -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["a", "b", 6]))
    y = b.add("Reshape", x, b.add("Concat", *_sizes(b, x), axis=0))
    found = reduced(b.model(y=y), {"x": np.ones((2, 3, 6), np.float32)})
    assert "onnx.Reshape" in found.operators


def _sizes(b: Builder, x: str) -> list[str]:
    """b, a, 6: the first two axes change places without their elements."""
    sizes = b.add("Shape", x)
    return [b.add("Gather", sizes, b.integers(axis)) for axis in (1, 0, 2)]


CUTS = [(0, 3, 1), (2, 5, 1), (-3, 2**31, 1), (1, -1, 2), (0, 1, -1)]


@pytest.mark.parametrize("quantized_too", [False, True])
@pytest.mark.parametrize(("begin", "end", "axis"), CUTS)
def test_every_slice(begin: int, end: int, axis: int, quantized_too: bool, tmp_path: Path) -> None:
    b = builder()
    x, feeds = fed(b, 2, 6, 5, 4) if quantized_too else layer(b, (2, 6, 5, 4))
    stop = min(end, 6) if end > 0 else end
    y = b.add("Slice", x, b.integers(begin), b.integers(stop), b.integers(axis))
    found = agrees(b.model(y=quantized(b, y, 0.05, 117) if quantized_too else y), feeds, tmp_path)
    assert found.steps == ["quantize" if quantized_too else "relu", "slice"]


@pytest.mark.parametrize(
    ("picked", "axis"), [(0, 1), (5, 1), (-1, 1), ([2], 1), ([1, 2, 3], 1), ([-2, -1], 2), (0, -1), (3, 2)]
)
def test_a_gather_of_neighbours(picked: int | list[int], axis: int, tmp_path: Path) -> None:
    b = builder()
    x, feeds = layer(b, (2, 6, 5, 4))
    y = b.add("Gather", x, b.constant(np.array(picked, np.int64)), axis=axis)
    found = agrees(b.model(y=y), feeds, tmp_path)
    assert found.steps == ["relu", "slice", *(["reshape"] if isinstance(picked, int) else [])]


def test_the_first_of_a_free_axis(tmp_path: Path) -> None:
    b = builder()
    x = b.add("Relu", b.input("x", ["batch", "length", 6]))
    y = b.add("Relu", b.add("Gather", x, b.constant(np.array(2, np.int64)), axis=1))
    path = tmp_path / "free.onnx"
    onnx.save(b.model(y=y), path)
    openwork.build(
        path, path.with_suffix(".engine"), native="force", strict=True, shapes=[[2, 5]], progress=False
    )
    engine = openwork.load(path.with_suffix(".engine"))
    for length in (3, 9):
        feed = np.random.default_rng(length).normal(size=(2, length, 6)).astype(np.float32)
        assert np.array_equal(engine.run({"x": feed})["y"], np.maximum(feed[:, 2], 0))
    with pytest.raises(ValueError, match="at least 3 elements along dimension 1, which are cut, found 2"):
        engine.run({"x": np.ones((2, 2, 6), np.float32)})


@pytest.mark.parametrize("picked", [[0, 2], [2, 1], [[0, 1]]])
def test_other_gathers_stay(picked: list[Any]) -> None:
    b = builder()
    x, feeds = layer(b, (2, 6, 5))
    found = reduced(b.model(y=b.add("Gather", x, b.constant(np.array(picked, np.int64)), axis=1)), feeds)
    assert found.operators == ["Relu", "onnx.Gather"]
    assert "its indices are not neighbours in order" in found.left[0]


@pytest.mark.parametrize("sizes", [(2, 4), (3, 3), (1, 2, 3)])
def test_every_split(sizes: tuple[int, ...], tmp_path: Path) -> None:
    b = builder()
    x, feeds = layer(b, (2, 6, 5))
    b.add("Split", x, b.integers(*sizes), axis=1)
    node = b.nodes[-1]
    node.output[:] = [f"part{number}" for number in range(len(sizes))]
    ends = {f"y{number}": b.add("Relu", name) for number, name in enumerate(node.output)}
    found = agrees(b.model(**ends), feeds, tmp_path)
    assert found.steps.count("slice") == len(sizes)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (((0, 0), (2, 2), (1, 2)), "it cuts 2 axes at once"),
        (((0,), (4,), (1,), (2,)), "it takes steps of 2 along an axis of the size 6"),
        (((0,), (1,), (0,)), "it takes steps of 1 along an axis of the size n"),
    ],
)
def test_other_slices_stay(cut: tuple[tuple[int, ...], ...], reason: str) -> None:
    b = builder()
    x, feeds = layer(b, (2, 6, 5))
    found = reduced(b.model(y=b.add("Slice", x, *(b.integers(*part) for part in cut))), feeds)
    assert found.operators == ["Relu", "onnx.Slice"]
    assert reason in found.left[0]


@pytest.mark.parametrize(("axis", "native"), [(-1, True), (2, True), (1, False)])
def test_softmax_along_the_last_axis(axis: int, native: bool, tmp_path: Path) -> None:
    b = builder()
    x, feeds = layer(b, (2, 6, 5))
    found = agrees(b.model(y=b.add("Softmax", x, axis=axis)), feeds, tmp_path) if native else None
    if found is not None:
        assert found.steps == ["relu", "softmax"]
        return
    kept = reduced(b.model(y=b.add("Softmax", x, axis=axis)), feeds)
    assert kept.operators == ["Relu", "onnx.Softmax"]
    assert "it does not run along the last axis" in kept.left[0]


def test_a_softmax_whose_result_is_rounded_quantizes(tmp_path: Path) -> None:
    b = builder()
    x, feeds = layer(b, (3, 10))
    found = agrees(b.model(y=quantized(b, b.add("Softmax", x, axis=-1), 1 / 255, 0)), feeds, tmp_path)
    assert found.steps == ["relu", "softmax"]


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 1, 2]])
def test_a_transpose_that_moves_channels(perm: list[int], tmp_path: Path) -> None:
    b = builder()
    x, feeds = layer(b, (2, 4, 5, 6))
    found = agrees(b.model(y=b.add("Transpose", x, perm=perm)), feeds, tmp_path)
    assert found.steps == ["relu", "to_channels_last" if perm[-1] == 1 else "to_channels_first"]


def test_a_convolution_over_images_that_come_channels_last_moves_nothing(tmp_path: Path) -> None:
    """As TensorFlow's exporters write it: a Transpose before and behind each convolution."""
    b = builder()
    b.input("x", ["n", 5, 6, 8])
    y = b.add("Transpose", "x", perm=[0, 3, 1, 2])
    y = b.add("Relu", b.add("Conv", y, b.normal(8, 8, 3, 3, scale=0.2), pads=[1] * 4))
    y = b.add("Conv", y, b.normal(4, 8, 1, 1, scale=0.3))
    y = b.add("Transpose", y, perm=[0, 2, 3, 1])
    found = agrees(b.model(y=y), {"x": b.rng.standard_normal((2, 5, 6, 8)).astype(np.float32)}, tmp_path)
    assert found.steps == ["conv", "conv"]


def test_views_behind_one_another_are_native_all_of_them(tmp_path: Path) -> None:
    """As at the head of ConvNeXt: a norm along the channels, moved back, flattened, multiplied."""
    b = builder()
    x = b.input("x", ["n", 1, 1, 8])
    y = b.add("LayerNormalization", x, b.normal(8), b.normal(8), axis=-1, epsilon=1e-3)
    y = b.add("Flatten", b.add("Transpose", y, perm=[0, 3, 1, 2]))
    y = b.add("Gemm", y, b.normal(5, 8), b.normal(5), transB=1)
    found = agrees(b.model(y=y), {"x": b.rng.standard_normal((3, 1, 1, 8)).astype(np.float32)}, tmp_path)
    assert found.steps == ["layer_norm", "reshape", "linear"]


def test_a_lone_operator_between_nodes_of_onnx_stays() -> None:
    """One native step in the middle would only cut the part that ONNX Runtime runs."""
    b = builder()
    x = b.add("CumSum", b.input("x", ["n", 6, 4]), b.constant(np.int64(1)))
    y = b.add("CumSum", b.add("Softmax", x, axis=-1), b.constant(np.int64(1)))
    found = reduced(b.model(y=y), {"x": b.rng.standard_normal((2, 6, 4)).astype(np.float32)})
    assert found.operators == ["onnx.CumSum", "onnx.Softmax", "onnx.CumSum"]


@pytest.mark.parametrize("clamp", ["none", "Relu", "Clip"])
@pytest.mark.parametrize("op", ["Add", "Mul"])
@pytest.mark.parametrize("integers", [False, True])
def test_sums_and_products_of_two_images(op: str, clamp: str, integers: bool, tmp_path: Path) -> None:
    b = builder()
    (x, feeds), (z, more) = fed(b, 2, 4, 5, 6, free=()), fed(b, 2, 4, 5, 6, name="z", free=())
    y = b.add(op, x, z)
    if clamp == "Relu":
        y = b.add("Relu", y)
    elif clamp == "Clip":
        y = b.add("Clip", y, b.number(-0.3), b.number(1.1))
    y = quantized(b, y, 0.0437, 110) if integers else y
    found = agrees(b.model(y=y), {**feeds, **more}, tmp_path)
    assert found.steps == ["quantize", "quantize", "add" if op == "Add" else "multiply"]


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("first", ["none", "Relu"])
@pytest.mark.parametrize("last", ["none", "Relu", "Clip", "HardSwish"])
def test_a_residual_of_a_convolution_with_what_follows(
    first: str, last: str, integers: bool, tmp_path: Path
) -> None:
    """What stands before the sum stays before it, what stands behind it behind; each in one order only."""
    b = builder()
    x, feeds = fed(b, 2, 8, 5, 6)
    weight, _ = quantized_weight(b, (8, 8, 3, 3))
    y = b.add("Conv", x, weight, b.normal(8), pads=[1] * 4)
    y = b.add("Add", b.add("Relu", y) if first == "Relu" else y, x)
    if last == "Clip":
        y = b.add("Clip", y, b.number(-0.5), b.number(1.5))
    elif last != "none":
        y = b.add(last, y)
    found = agrees(b.model(y=quantized(b, y, 0.0371, 90) if integers else y), feeds, tmp_path)
    assert found.steps[:2] == ["to_channels_last", "conv"]
    alone = first == "none" or last == "none"
    assert len(found.steps) == 3 if alone else len(found.steps) > 3
