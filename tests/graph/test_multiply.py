"""Products of two computed values, element by element, from an ONNX node down to the native step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import openwork
from graph_models import Builder, reduced
from openwork.graph.reference import MEANING

Case = tuple[onnx.ModelProto, dict[str, np.ndarray]]


def gate(second: str) -> Case:
    """relu(x) times relu(z), times relu of a single row, or times a constant."""
    b = Builder(np.random.default_rng(3))
    x = b.input("x", ["rows", 40])
    feeds = {"x": (b.rng.standard_normal((5, 40)) * 3).astype(np.float32)}
    if second == "constant":
        return b.model(y=b.add("Mul", b.add("Relu", x), b.normal(5, 40))), feeds
    size = ("rows", 5) if second == "value" else (1, 1)
    z = b.input("z", [size[0], 40])
    feeds["z"] = b.rng.standard_normal((size[1], 40)).astype(np.float32)
    return b.model(y=b.add("Mul", b.add("Relu", x), b.add("Relu", z))), feeds


def test_values_of_one_shape_are_multiplied() -> None:
    found = reduced(*gate("value"))
    assert found.operators == ["Relu", "Relu", "Multiply"]
    assert found.left == []
    assert np.array_equal(found.before["y"], found.after["y"])


@pytest.mark.parametrize("second", ["row", "constant"])
def test_other_products_stay(second: str) -> None:
    assert reduced(*gate(second)).operators[-1] == "onnx.Mul"


def test_the_reference_rounds_once_and_takes_what_is_not_finite() -> None:
    a, b = np.array([3, np.inf, 1e30, -0.0], np.float32), np.array([1 / 3, 0, 1e30, 2], np.float32)
    made = MEANING["Multiply"](a, b, None, {})
    assert made[[0, 2, 3]].tolist() == [1.0, np.inf, 0.0]
    assert np.isnan(made[1])
    assert np.signbit(made[3])


def test_an_engine_runs_it(tmp_path: Path) -> None:
    proto, feeds = gate("value")
    path = tmp_path / "gate.engine"
    report = openwork.build(proto, path, strict=True, timing_cache=tmp_path / "cache.json", progress=False)
    assert report.fallbacks == ()
    assert np.array_equal(openwork.load(path, threads=2).run(feeds)["y"], reduced(proto, feeds).before["y"])
