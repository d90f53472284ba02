"""Values side by side, of floats and of integers with scales of their own, down to the native step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import openwork
from graph_models import Builder, reduced
from openwork.engine.operators import OPERATORS, Form, Operand, Problem, examine
from openwork.graph.reference import concat

Case = tuple[onnx.ModelProto, dict[str, Any]]


def floats(seed: int, axis: int) -> Case:
    """Two to four values of random sizes along the axis, through an activation each."""
    b = Builder(np.random.default_rng(seed))
    free = [2, 3, 4]
    values, feeds = [], {}
    for index in range(int(b.rng.integers(2, 5))):
        sizes = [*free]
        sizes[axis] = int(b.rng.integers(1, 6))
        name = b.input(
            f"x{index}", ["batch" if place == 0 != axis % 3 else size for place, size in enumerate(sizes)]
        )
        feeds[name] = b.rng.standard_normal(sizes).astype(np.float32)
        values.append(b.add("Relu", name))
    return b.model(y=b.add("Concat", *values, axis=axis)), feeds


def integers(seed: int, axis: int, same: bool = False) -> Case:
    """The same of rounded values, rounded again; a u8 output."""
    b = Builder(np.random.default_rng(seed))
    values, feeds = [], {}
    for index in range(int(b.rng.integers(2, 5))):
        sizes = [3, 4]
        sizes[axis] = int(b.rng.integers(1, 70))
        name = b.input(f"x{index}", sizes)
        feeds[name] = (b.rng.standard_normal(sizes) * 3).astype(np.float32)
        # Powers of two, so that no number lies within rounding of a tie of one arithmetic and not the other.
        scale, point = (
            (0.0625, 7) if same else (2.0 ** -int(b.rng.integers(2, 6)), int(b.rng.integers(0, 256)))
        )
        values.append(b.round_trip(name, scale, point))
    y = b.add("QuantizeLinear", b.add("Concat", *values, axis=axis), *b.quantizer(0.0625, 7))
    return b.model(y=y), feeds


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("seed", range(3))
def test_floats_are_copied(seed: int, axis: int) -> None:
    found = reduced(*floats(seed, axis))
    assert found.operators[-1] == "Concat"
    assert found.node("Concat").attributes["axis"].value == axis % 3
    assert np.array_equal(found.before["y"], found.after["y"])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_integers_of_other_scales_go_through_their_tables(seed: int, axis: int, same: bool) -> None:
    found = reduced(*integers(seed, axis, same))
    assert found.operators == [*["Quantize"] * (len(found.operators) - 1), "Concat"]
    assert (found.node("Concat").inputs[0] is None) == same
    assert np.array_equal(found.before["y"], found.after["y"])


def test_refusals_say_why() -> None:
    b = Builder(np.random.default_rng(0))
    x, z = b.input("x", ["rows", 4]), b.input("z", ["others", 4])
    found = reduced(
        b.model(y=b.add("Concat", x, z, axis=0), w=b.add("Concat", x, b.normal(1, 4), axis=0)),
        {"x": np.ones((2, 4), np.float32), "z": np.ones((3, 4), np.float32)},
    )
    assert found.operators == ["onnx.Concat"] * 2
    assert found.reasons == [
        "its sizes along the axis are ['rows', 'others']; they must be fixed",
        "one of its operands is a constant",
    ]


def test_the_row_refuses_what_does_not_fit() -> None:
    row = OPERATORS["Concat"]
    tables, x = row.inputs

    def problem(*shapes: tuple[int | str, ...], axis: int = 1, table: int = 0, dtype: str = "u8") -> str:
        held = Operand("u8", (table, 256), True) if table else None
        form = Form({"axis": axis}, [(tables, held), *((x, Operand(dtype, shape)) for shape in shapes)])
        found = examine(row, form, lambda a, b: a == b)
        assert isinstance(found, Problem)
        return str(found)

    assert problem((2, 3), (3, 3)) == "'x' must be of the shape [2, 3] but for the axis 1, but it is [3, 3]"
    assert problem((2, 3), (2,)) == "'x' must be of the shape [2, 3] but for the axis 1, but it is [2]"
    assert problem((2, 3), axis=2) == "'axis' must be below the number of dimensions, 2, but it is 2"
    assert "of fixed sizes along the axis 1" in problem((2, "n"), (2, 3))
    assert "a row for each value of x, 2, but it is 3 rows" in problem((2, 3), (2, 3), table=3)
    assert "'tables' must be absent where x is not u8" in problem((2, 3), (2, 3), table=2, dtype="f32")


def test_the_reference_takes_tables() -> None:
    tables = np.stack([np.arange(256), np.arange(256)[::-1]]).astype(np.uint8)
    a, b = np.array([[1, 2]], np.uint8), np.array([[0, 255]], np.uint8)
    assert concat(tables, a, b, {"axis": 1}).tolist() == [[1, 2, 255, 0]]
    assert concat(None, a, b, {"axis": 0}).tolist() == [[1, 2], [0, 255]]


@pytest.mark.parametrize("made", [floats, integers])
@pytest.mark.parametrize("axis", [0, 1])
def test_engines_run_it(made: Any, axis: int, tmp_path: Path) -> None:
    proto, feeds = made(5, axis)
    path = tmp_path / "concat.engine"
    report = openwork.build(proto, path, strict=True, timing_cache=tmp_path / "cache.json", progress=False)
    assert report.fallbacks == ()
    engine = openwork.load(path, threads=2)
    wanted = reduced(proto, feeds).after["y"]
    assert np.array_equal(engine.run(feeds)["y"], wanted)
