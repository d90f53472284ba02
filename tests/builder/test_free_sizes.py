"""Sizes that only a fallback step knows: layers behind it are timed at the rows that they really have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import openwork
from openwork.backends.onnxruntime import shapes
from openwork.builder import tactics
from openwork.builder.builder import build
from openwork.engine.report import BuildReport
from qdq_models import Net

FEATURES, N = 64, 32


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tactics, "_SECONDS_PER_PROBLEM", 0.0)
    monkeypatch.setattr(tactics, "DISTURBED", np.inf)


def model(*nodes: onnx.NodeProto, behind: str) -> onnx.ModelProto:
    """x [batch, 64] through nodes that no rule reduces, to `behind` [?, 64], then a Q/DQ linear layer."""
    net = Net(np.random.default_rng(0))
    net.nodes = list(nodes)
    net.top = behind
    net.linear("first", N, FEATURES, sparse=True)
    net.nodes.append(helper.make_node("Identity", [net.top], ["y"], "last"))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
        for name, rows, width in (("x", "batch", FEATURES), ("y", None, N))
    ]
    graph = helper.make_graph(
        nodes=net.nodes, name="g", inputs=ports[:1], outputs=ports[1:], initializer=net.initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def constant(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def tripled() -> onnx.ModelProto:
    """[3 * batch, 64], which follows from the shapes."""
    return model(
        helper.make_node("Sin", ["x"], ["s"], "s"),
        helper.make_node("Concat", ["s", "s", "s"], ["c"], "c", axis=0),
        behind="c",
    )


def chosen() -> onnx.ModelProto:
    """The rows whose sum is positive, which follow from the data."""
    return model(
        constant("axis", np.array([1])),
        constant("zero", np.float32(0)),
        helper.make_node("ReduceSum", ["x", "axis"], ["sums"], "sums", keepdims=0),
        helper.make_node("Greater", ["sums", "zero"], ["positive"], "positive"),
        helper.make_node("Compress", ["x", "positive"], ["c"], "c", axis=0),
        behind="c",
    )


def built(proto: onnx.ModelProto, folder: Path) -> BuildReport:
    options = {"shapes": [[5], [40]], "threads": 1, "timing_cache": folder / "t.json"}
    return build(proto, folder / "m.engine", progress=False, **options)


def test_sizes_that_follow_from_shapes_are_exact(tmp_path: Path) -> None:
    report = built(tripled(), tmp_path)
    (layer,) = report.layers
    assert [bucket.rows for bucket in layer.buckets] == [15, 120]
    assert not any("The sizes of" in note for note in report.notes)
    x = np.random.default_rng(1).standard_normal((7, FEATURES)).astype(np.float32)
    assert openwork.load(tmp_path / "m.engine", threads=1).run({"x": x})["y"].shape == (21, N)


def test_sizes_that_follow_from_the_data_are_sampled_and_noted(tmp_path: Path) -> None:
    report = built(chosen(), tmp_path)
    rows = [bucket.rows for bucket in report.layers[0].buckets]
    assert len(rows) == 2
    assert 1 <= rows[0] <= 5 < rows[1] < 40
    (note,) = [note for note in report.notes if "The sizes of" in note]
    assert "are not known from its inputs' sizes alone; the layers behind it are taken at those" in note


def test_sizes_that_cannot_be_found_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_MOST_SAMPLED", 0)
    report = built(chosen(), tmp_path)
    assert [bucket.rows for bucket in report.layers[0].buckets] == [1]
    (note,) = [note for note in report.notes if "The sizes of" in note]
    assert "could not be found (its inputs are too large to try it on samples), so" in note
    assert note.endswith("are taken as if they were 1.")
