"""Products of which each half goes its own way, and sums behind a change of shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import openwork
from graph_models import Builder, runtime
from openwork.graph import read, reduce

TOLERANCE = 64 * 2.0**-23
"""Of numbers of a few units: a sum of 16 products in another order, a GELU of an error below 1e-6."""


def names(model: onnx.ModelProto) -> list[str]:
    reduced, _, _ = reduce(read(model))
    return [node.op_type for node in reduced.graph]


def agrees(model: onnx.ModelProto, feeds: dict[str, np.ndarray], path: Path) -> None:
    report = openwork.build(model, path, native="force", threads=1, progress=False, strict=True)
    assert not report.fallbacks
    found = openwork.load(path, threads=1).run(feeds)
    for name, wanted in runtime(model, feeds).items():
        assert np.abs(found[name] - wanted).max() <= TOLERANCE * max(1.0, np.abs(wanted).max())


def gated(b: Builder, width: int, cut: str) -> str:
    made = b.add(
        "Add", b.add("MatMul", b.input("x", ["batch", 5, 16]), b.normal(16, 2 * width)), b.normal(2 * width)
    )
    if cut == "Split":
        b.nodes.append(
            onnx.helper.make_node("Split", [made], ["value", "gate"], "split", axis=-1, num_outputs=2)
        )
        value, gate = "value", "gate"
    else:
        value = b.add("Slice", made, b.integers(0), b.integers(width), b.integers(2))
        gate = b.add("Slice", made, b.integers(width), b.integers(2 * width), b.integers(2))
    return b.add("Mul", value, b.add("Gelu", gate))


@pytest.mark.parametrize("cut", ["Split", "Slice"])
def test_a_gated_product_is_two_products(cut: str, tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    model = b.model(y=gated(b, 32, cut))
    assert names(model) == ["Linear", "Linear", "Multiply"]
    agrees(model, {"x": b.rng.standard_normal((3, 5, 16)).astype(np.float32)}, tmp_path / "m.engine")


def test_narrow_halves_are_cut(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    model = b.model(y=gated(b, 8, "Split"))
    assert names(model).count("Slice") == 2
    agrees(model, {"x": b.rng.standard_normal((2, 5, 16)).astype(np.float32)}, tmp_path / "m.engine")


def test_halves_that_overlap_stay_one_product() -> None:
    b = Builder(np.random.default_rng(0))
    made = b.add("MatMul", b.input("x", [5, 16]), b.normal(16, 96))
    first = b.add("Slice", made, b.integers(0), b.integers(64), b.integers(1))
    second = b.add("Slice", made, b.integers(32), b.integers(96), b.integers(1))
    assert names(b.model(y=b.add("Relu", first), z=b.add("Relu", second))).count("Linear") == 1


def test_a_sum_behind_a_reshape_is_a_residual(tmp_path: Path) -> None:
    b = Builder(np.random.default_rng(0))
    image = b.add("Conv", b.input("x", ["batch", 8, 2, 3]), b.normal(16, 8, 1, 1))
    pixels = b.add("Transpose", image, perm=[0, 2, 3, 1])
    tokens = b.add("Reshape", pixels, b.integers(0, 6, 16))
    made = b.add("Reshape", b.add("MatMul", tokens, b.normal(16, 16)), b.integers(0, 2, 3, 16))
    total = b.add("Add", b.add("Transpose", made, perm=[0, 3, 1, 2]), image)
    model = b.model(y=b.add("Conv", total, b.normal(8, 16, 1, 1)))
    found = [name for name in names(model) if name != "Reshape"]
    assert found == ["ToChannelsLast", "Conv", "Linear", "Conv", "ToChannelsFirst"]
    agrees(model, {"x": b.rng.standard_normal((2, 8, 2, 3)).astype(np.float32)}, tmp_path / "m.engine")
