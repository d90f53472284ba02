"""What the contract makes of shapes, and the words with which it refuses images and elements."""

from __future__ import annotations

from typing import Any

import pytest

from openwork.engine.operators import OPERATORS, Form, Operand, examine

WINDOW = {"kernel": [3, 3], "strides": [2, 2], "dilations": [1, 1], "pads": [1, 1, 1, 1]}
X = {"x_scale": 0.1, "x_zero_point": 0}


def found(name: str, attributes: dict[str, Any], **given: Operand) -> Any:
    row = OPERATORS[name]
    inputs = [(slot, given.get(slot.name)) for slot in row.inputs]
    result = examine(row, Form(attributes, inputs), lambda a, b: a == b)
    return result[0] if isinstance(result[0], tuple) else str(result)


def u8(*shape: int | str) -> Operand:
    return Operand("u8", shape)


def f32(*shape: int | str, stored: bool = False) -> Operand:
    return Operand("f32", shape, stored)


@pytest.mark.parametrize(
    ("shape", "x", "made"),
    [
        ([0, -1], ("B", 2, 3, 4), ("B", 24)),
        ([0, 2, -1], ("B", 2, 3, 4), ("B", 2, 12)),
        ([-1], ("B",), ("B",)),
        ([-1, 24], ("B", 2, 3, 4), ("B", 24)),
        ([-1, 6], ("B", 2, 3, 4), (None, 6)),
        ([0, 0, 1, 1], ("B", "L"), ("B", "L", 1, 1)),
        ([6], (2, 3), (6,)),
    ],
)
def test_a_reshape_keeps_free_dimensions(shape: list[int], x: tuple[Any, ...], made: Any) -> None:
    assert found("Reshape", {"shape": shape}, x=u8(*x)) == made


def test_windows_of_free_images_have_sizes_of_their_own() -> None:
    assert found("MaxPool", WINDOW, x=u8("B", 112, 112, 64)) == ("B", 56, 56, 64)
    assert found("MaxPool", WINDOW, x=u8("B", "H", "W", 64)) == ("B", None, None, 64)
    same = WINDOW | {"strides": [1, 1]}
    assert found("MaxPool", same, x=u8("B", "H", "W", 64)) == ("B", "H", "W", 64)
    pads = {"pads": [1, 0, 0, 0, 0, 2], "value": 0.5}
    assert found("Pad", pads, x=f32("B", "H", "W", 4)) == ("B", None, "W", 6)


IMAGE = f32("B", 3, 8, 4)
REFUSED: list[tuple[str, dict[str, Any], dict[str, Operand], str]] = [
    ("Reshape", {"shape": [0, 7]}, {"x": u8("B", 2, 3, 4)}, "'shape' must be of as many elements as x"),
    ("Reshape", {"shape": [5]}, {"x": u8(2, 3)}, "'shape' must be of as many elements as x, [2, 3]"),
    ("Reshape", {"shape": [-1, -1]}, {"x": u8(2, 3)}, "'shape' must be of one -1 at most"),
    ("Reshape", {"shape": [1, 0]}, {"x": u8(2)}, "'shape' must be without a 0 behind the 1 dimensions of x"),
    ("Reshape", {"shape": [1] * 9}, {"x": u8(1)}, "'shape' must be 1 to 8 integers from -1 to"),
    ("Slice", {"axis": 1, "begin": 2, "end": 5}, {"x": u8("B", 4)}, "'end' must be at most the size of the"),
    ("Slice", {"axis": 1, "begin": 2, "end": 2}, {"x": u8("B", 4)}, "'begin' must be below 'end', 2"),
    ("Slice", {"axis": 2, "begin": 0, "end": 1}, {"x": u8("B", 4)}, "'axis' must be below the number of"),
    ("AveragePool", WINDOW | {"overhang": [2, 0]}, {"x": IMAGE}, "'overhang' must be at most the pads at"),
    (
        "AveragePool",
        WINDOW | X | {"kernel": [4000, 4000]},
        {"x": u8("B", 8000, 8000, 4)},
        "'kernel' must be of at most 8388608 pixels, whose sum INT32 holds, but it is of 16000000",
    ),
    ("GlobalAveragePool", X, {"x": u8("B", 8000, 8000, 4)}, "'x' must be of at most 8388608 pixels"),
    (
        "ToChannelsLast",
        {"y_scale": 0.1, "y_zero_point": 0},
        {"x": u8("B", 3, 8, 4)},
        "'y_scale' must be absent where x is u8, but it is given",
    ),
    (
        "Pad",
        {"pads": [0] * 6, "value": 0.5},
        {"x": u8("B", 3, 8, 4)},
        "'value' must be an integer from 0 to 255",
    ),
    (
        "Add",
        {},
        {"a": IMAGE},
        "'b' must be given exactly where 'constant' is absent, but it is absent, and so",
    ),
    (
        "Add",
        {},
        {"a": IMAGE, "b": IMAGE, "constant": f32(4, stored=True)},
        "'b' must be given exactly where 'constant' is absent, but it is given with 'constant'",
    ),
    (
        "Add",
        {},
        {"a": IMAGE, "b": f32("B", 1, 1, 5)},
        "'b' must be of the shape of a, ['B', 3, 8, 4], or one pixel",
    ),
    ("Add", {}, {"a": IMAGE, "b": f32("B", 1, 8, 4)}, "'b' must be of the shape of a"),
    (
        "Add",
        {},
        {"a": IMAGE, "constant": f32(5, stored=True)},
        "'constant' must be one number, or one for each",
    ),
    (
        "Multiply",
        {"activation": "clip", "alpha": 2.0, "beta": 1.0},
        {"a": IMAGE, "b": IMAGE},
        "'alpha' must be at most 'beta', the other end of the clip, but it is 2.0 with a 'beta' of 1.0",
    ),
    (
        "Multiply",
        {"activation": "clip", "alpha": 2.0},
        {"a": IMAGE, "b": IMAGE},
        "'activation' must be clip with exactly the numbers ['alpha', 'beta'], but it is clip with ['alpha']",
    ),
    (
        "Multiply",
        {"b_scale": 0.1, "b_zero_point": 3},
        {"a": IMAGE, "constant": f32(4, stored=True)},
        "'b_scale' must be given only together with 'b'",
    ),
]


@pytest.mark.parametrize(
    ("name", "attributes", "given", "sentence"), REFUSED, ids=[f"{i}-{r[0]}" for i, r in enumerate(REFUSED)]
)
def test_refusals(name: str, attributes: dict[str, Any], given: dict[str, Operand], sentence: str) -> None:
    assert found(name, attributes, **given).startswith(sentence)


def test_a_free_axis_is_cut_where_a_run_has_it() -> None:
    assert found("Slice", {"axis": 0, "begin": 1, "end": 3}, x=u8("B", 4)) == (2, 4)


def test_a_pixel_for_each_image_meets_all_of_its_pixels() -> None:
    assert found("Multiply", {}, a=f32("B", "H", "W", 4), b=f32("B", 1, 1, 4)) == ("B", "H", "W", 4)
    scales = {f"{side}_{kind}": 1 for side in "ab" for kind in ("scale", "zero_point")}
    assert found("Multiply", scales, a=u8("B", 7, 7, 4), b=u8("B", 1, 1, 4)) == ("B", 7, 7, 4)
