"""The contract of operators: every row against its reference, and the page that prints the table."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import (
    OPERATORS,
    Attribute,
    Form,
    Operand,
    Problem,
    examine,
    infer,
    output_dtype,
    row_of_step,
    step_names,
)
from openwork.engine.operators.__main__ import table
from openwork.engine.shapes import Letters, may_be_equal
from openwork.graph.reference import MEANING
from operator_samples import Sample

ROUNDS = 30


def equal(a: int | str, b: int | str) -> bool:
    return a == b


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_row_says_what_its_reference_gives(name: str) -> None:
    row = OPERATORS[name]
    for seed in range(ROUNDS):
        sample = Sample(row, np.random.default_rng(seed))
        form = sample.form()
        shapes = examine(row, form, equal)
        assert not isinstance(shapes, Problem), f"seed {seed}: {shapes}"
        assert shapes == infer(row, form), f"seed {seed}"
        for slot, shape, array in zip(row.outputs, shapes, sample.results(), strict=True):
            if array is None:
                assert slot.needs, f"seed {seed}: the reference gives no {slot.name}"
                continue
            assert array.shape == shape, f"seed {seed}"
            assert array.dtype == DTYPES[output_dtype(form, slot)], f"seed {seed}"


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_another_size_of_any_input_is_found(name: str) -> None:
    """One dimension that the row names twice, made larger by one: the row refuses the node."""
    row, found = OPERATORS[name], 0
    for seed in range(ROUNDS):
        sample = Sample(row, np.random.default_rng(seed))
        form = sample.form()
        for index, (slot, operand) in enumerate(form.inputs):
            if operand is None or not operand.shape:
                continue
            inputs = list(form.inputs)
            larger = (*operand.shape[:-1], int(operand.shape[-1]) + 1)  # type: ignore[arg-type]
            inputs[index] = (slot, operand._replace(shape=larger))
            outputs = [(o, Operand(None, s)) for o, s in zip(row.outputs, infer(row, form), strict=True)]
            served = [(o, held if all(map(form.has, o.needs)) else None) for o, held in outputs]
            alone = slot.name not in ("word", "position", "type") and (slot.variadic, slot.shape) != (
                True,
                ("*",),
            )
            # Bags take any number of ids, and of a past that only counts its keys are looked at.
            alone &= not (slot.indexes and row.input_index("offsets") is not None)
            alone &= slot.name != "behind"
            result = examine(row, Form(form.attributes, inputs, served), equal)
            found += isinstance(result, Problem)
            assert isinstance(result, Problem) or not alone, f"seed {seed}: {slot.name}"
    assert found


def test_a_type_that_a_slot_does_not_take_is_found() -> None:
    for name, row in OPERATORS.items():
        form = Sample(row, np.random.default_rng(0)).form()
        for index, (slot, operand) in enumerate(form.inputs):
            if operand is None:
                continue
            inputs = [*form.inputs]
            inputs[index] = (slot, operand._replace(dtype="f64"))
            result = examine(row, Form(form.attributes, inputs), equal)
            assert isinstance(result, Problem), f"{name}: {slot.name}"
            assert result.found.startswith("f64"), str(result)


def test_what_is_not_known_agrees_and_free_dimensions_may() -> None:
    row = OPERATORS["Add"]
    a, b, _ = row.inputs
    free = Form({}, [(a, Operand("f32", ("rows", None))), (b, Operand("f32", ("other", 4)))])
    assert examine(row, free, may_be_equal) == (("rows", 4),)
    assert isinstance(examine(row, free, equal), Problem)
    unknown = Form({}, [(a, Operand()), (b, Operand("f32", (2, 3)))])
    assert examine(row, unknown, equal) == ((2, 3),)
    assert infer(row, Form({}, [(a, Operand()), (b, Operand())])) == (None,)


def test_the_grammar_of_shapes() -> None:
    letters = Letters(equal)
    assert letters.match(("...", "N"), ("rows", 2, 5)) is None
    assert letters.match(("N",), (5,)) is None
    assert letters.match(("N",), (6,)) == "5 as N"
    assert letters.match(("N",), (5, 5)) == "1 dimension"
    assert letters.match(("...", "N", "M"), (5,)) == "at least 2 dimensions"
    assert letters.match(("...", "N"), (3, 2, 5)) == "['rows', 2] as the leading dimensions"
    assert letters.match(("N", "256"), (5, 255)) == "256"
    assert letters.match(("*",), (9, 9, 9, 9)) is None
    assert letters.fill(("...", "7", "N", "U")) == ("rows", 2, 7, 5, None)


def check_lists(attribute: Attribute) -> None:
    """As many integers in the range as the attribute says, and no others."""
    for count in range(attribute.most + 2):
        fits = attribute.fewest <= count <= attribute.most
        for end in (attribute.low, attribute.high):
            assert attribute.accepts([end] * count) == fits, (attribute.name, count)
        assert not attribute.accepts([attribute.high + 1] * count or None), attribute.name
    assert not attribute.accepts([True] * attribute.most), attribute.name


def test_attributes_take_their_range_and_nothing_else() -> None:
    attributes = {a.name: a for row in OPERATORS.values() for a in row.attributes}
    for attribute in attributes.values():
        for value in (None, True, [1.5], {}, float("nan"), float("inf"), -1e39, "", b"x"):
            assert not attribute.accepts(value), (attribute.name, value)
        if attribute.kind == "ints":
            check_lists(attribute)
        elif attribute.kind != "string":
            assert attribute.accepts(attribute.low), attribute.name
            assert attribute.accepts(attribute.high), attribute.name
            assert not attribute.accepts(attribute.high * 2 + 1), attribute.name
    assert attributes["x_scale"].accepts(1.1754944e-38)
    assert not attributes["x_scale"].accepts(1e-40)
    assert not attributes["heads"].accepts(2.0)


def test_steps_and_operators_have_each_other() -> None:
    assert [row_of_step(name) for name in step_names()] == list(OPERATORS.values())
    assert row_of_step("linear_float") is None
    assert set(MEANING) == set(OPERATORS)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_printed_table_has_every_row(name: str) -> None:
    row = OPERATORS[name]
    (line,) = (line for line in table().splitlines() if line.startswith(f"| `{name}` |"))
    _, inputs, outputs, tensors, attributes = cells(line)
    assert re.findall(r"`(\w+)`", inputs) == [slot.name for slot in row.activations]
    assert re.findall(r"`(\w+)`", outputs) == [slot.name for slot in row.outputs]
    assert re.findall(r"`(\w+)`", tensors) == [slot.name for slot in row.tensors]
    assert re.findall(r"`(\w+)`", attributes) == [attribute.name for attribute in row.attributes]


def test_the_printed_table_says_what_a_row_says() -> None:
    lines = table().splitlines()
    assert lines[0].startswith("| operator | inputs | outputs |")
    assert (
        "| `LayerNorm` | `x` f32 [..,N] | `y` f32 [..,N] optional; `yq` u8 [..,N] with y_scale | "
        "`gamma` f32 [N]; `beta` f32 [N]; `y_multiplier` f32 [N] optional, with y_scale | "
        "`epsilon`, `y_scale`, `y_zero_point` |"
    ) in lines
    assert (
        "| `Concat` | `x` f32 or u8 [*], one or more | `y` f32 or u8 [..] | "
        "`tables` u8 [I,256] optional | `axis` |"
    ) in lines


def test_the_table_is_printed_by_its_command() -> None:
    command = [sys.executable, "-m", "openwork.engine.operators"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == table() + "\n"


@pytest.mark.parametrize("kind", ["on the elements of two values", "with a step of its own"])
def test_an_operator_has_five_places_and_all_exist(kind: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (places,) = re.findall(rf"^\| operator {kind} \| (.*?) \|", page, re.MULTILINE)
    assert re.findall(r"\((\d)\)", places) == ["1", "2", "3", "4", "5"]
    named = re.findall(r"`([^`]+)`", places)
    assert len(named) == 4  # a test stands where the tests of its kind do
    for path in named:
        assert (ROOT / path).exists() or (SOURCES / path).exists(), path


ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "openwork"
READERS = (
    "engine/operators/contract.py",
    "engine/operators/examination.py",
    "engine/program_reader.py",
    "engine/sample.py",
    "engine/shapes.py",
    "graph/model.py",
    "graph/slots.py",
    "graph/verify.py",
    "graph/rules/epilogue/followers.py",
    "graph/rules/products/bias.py",
    "graph/rules/products/followed.py",
    "builder/lower.py",
    "backends/cpu/bind.py",
)
"""What reads the rows, and so names no operator: adding one touches none of them."""


@pytest.mark.parametrize("path", READERS)
def test_what_reads_the_rows_names_no_operator(path: str) -> None:
    tree = ast.parse((SOURCES / path).read_text(encoding="utf-8"))
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    anchors = {"Add", "Dequantize"} if "rules" in path else set()
    assert words & {*OPERATORS, *step_names()} <= anchors
