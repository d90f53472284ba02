"""The contract of operators: every row against its reference, and the page that prints the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import (
    OPERATORS,
    Attribute,
    Form,
    Operand,
    Operator,
    Problem,
    Slot,
    examine,
    infer,
    output_dtype,
    row_of_step,
    step_names,
)
from openwork.engine.shapes import Letters, may_be_equal
from openwork.graph.reference import MEANING

PAGE = Path(__file__).parents[2] / "docs" / "program.md"
ROUNDS = 30


def equal(a: int | str, b: int | str) -> bool:
    return a == b


class Sample:
    """A random node of one row: attributes in their ranges, arrays of the shapes that the row asks for."""

    def __init__(self, row: Operator, rng: np.random.Generator) -> None:
        self.row, self.rng = row, rng
        self.count = int(rng.integers(1, 4))
        self.kind = ("f32", "u8")[rng.integers(2)]
        fewest = int(any(slot.variadic for slot in row.inputs))
        self.leading = tuple(int(size) for size in rng.integers(1, 4, rng.integers(fewest, 3)))
        self.sizes = {letter: int(rng.integers(1, 7)) for letter in "ABCIKLNPTVW"}
        self.sizes |= {"H": 6, "L": 3, "I": self.count, "P": int(rng.integers(3, 6))}
        self.attributes = self._attributes()
        self.arrays = self._arrays()

    def _attributes(self) -> dict[str, Any]:
        """Optional ones by groups: an attribute comes with all that it needs."""
        groups = {"x": self.rng.random() < 0.5, "y": self.rng.random() < 0.5}
        values = {}
        for attribute in self.row.attributes:
            group = attribute.name.partition("_")[0]
            if not attribute.optional or groups.get(group, False):
                values[attribute.name] = self._value(attribute)
        if "alpha" in values and "beta" in values:
            values["alpha"], values["beta"] = sorted((values["alpha"], values["beta"]))
        return values

    def _value(self, attribute: Attribute) -> Any:
        if attribute.kind == "string":
            return "relu"
        if attribute.kind == "float":
            return float(self.rng.uniform(0.1, 2.0))
        divisors = {"heads": 3, "axis": len(self.leading) - 1}
        high = min(int(attribute.high), 255)
        return divisors.get(attribute.name, int(self.rng.integers(int(attribute.low), high + 1)))

    def _arrays(self) -> list[tuple[Slot, Any]]:
        made = []
        packed = self.row.name == "Attention" and self.rng.random() < 0.5
        self.sizes["Q"] = self.sizes["H"] * (3 if packed else 1)
        present: set[str] = {*self.attributes}
        for slot in self.row.inputs:
            wanted = not slot.optional or self.rng.random() < 0.5
            if slot.name in ("k", "v"):
                wanted = not packed
            elif any(name not in present for name in slot.needs):
                wanted = False
            elif slot.dtypes == ("u8",) and slot.tensor:
                wanted &= self.kind == "u8"
            if wanted:
                present.add(slot.name)
            for _ in range(self.count if slot.variadic else 1):
                made.append((slot, self._array(slot) if wanted else None))
        return made

    def _array(self, slot: Slot) -> Any:
        shape = self.shape(slot)
        free = len(slot.dtypes) > 1 and not slot.scale
        dtype = DTYPES[self.kind if free else slot.dtypes_with(self.attributes)[0]]
        if dtype.kind == "f":
            return self.rng.uniform(0.1, 1.0, shape).astype(dtype)
        return self.rng.integers(0, 1 if slot.indexes else 100, shape).astype(dtype)

    def shape(self, slot: Slot) -> tuple[int, ...]:
        if slot.shape == ("*",):
            return self.leading
        sizes = (
            self.leading if word == "..." else (int(word) if word.isdigit() else self.sizes[word],)
            for word in slot.shape
        )
        return tuple(size for part in sizes for size in part)

    def form(self) -> Form:
        names = {dtype: name for name, dtype in DTYPES.items()}
        inputs = [
            (slot, None if array is None else Operand(names[array.dtype], array.shape, slot.tensor))
            for slot, array in self.arrays
        ]
        return Form(self.attributes, inputs)

    def results(self) -> tuple[Any, ...]:
        values = MEANING[self.row.name](*(array for _, array in self.arrays), self.attributes)
        return values if isinstance(values, tuple) else (values,)


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
    a, b = row.inputs
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


def test_attributes_take_their_range_and_nothing_else() -> None:
    attributes = {a.name: a for row in OPERATORS.values() for a in row.attributes}
    for attribute in attributes.values():
        for value in (None, True, [1], {}, float("nan"), float("inf"), -1e39, "", b"x"):
            assert not attribute.accepts(value), (attribute.name, value)
        if attribute.kind != "string":
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


def documented() -> dict[str, list[str]]:
    """The rows of the page: for each operator, the names in its cells."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            for operator in re.findall(r"`(\w+)`", cells[0]):
                rows[operator] = cells
    return rows


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_page_prints_every_row(name: str) -> None:
    row, (_, inputs, outputs, tensors, attributes) = OPERATORS[name], documented()[name]
    assert re.findall(r"`(\w+)`", inputs) == [slot.name for slot in row.activations]
    assert re.findall(r"`(\w+)`", outputs) == [slot.name for slot in row.outputs]
    assert re.findall(r"`(\w+)`", tensors) == [slot.name for slot in row.tensors]
    assert re.findall(r"`(\w+)`", attributes) == [attribute.name for attribute in row.attributes]
    for cell, slots in ((inputs, row.activations), (outputs, row.outputs), (tensors, row.tensors)):
        for slot, text in zip(slots, re.split(r"; (?=`)", cell), strict=False):
            assert re.findall(r"\b[fusib]+\d+\b", text) == list(slot.dtypes), f"{slot.name}: {text}"
            assert f"[{','.join(slot.shape).replace('...', '..')}]" in text, f"{slot.name}: {text}"
            assert ("optional" in text) == slot.optional, f"{slot.name}: {text}"
            assert ("with" in text.split()) == bool(slot.needs), f"{slot.name}: {text}"


def test_the_page_prints_no_other_rows() -> None:
    assert set(documented()) == set(OPERATORS)


SOURCES = Path(__file__).parents[2] / "src" / "openwork"
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

NATIVE_NAMES_DIFFER = {"embedding_sum", "linear", "concat", "dequantize"}
"""The steps whose native method calls an argument otherwise than the row does."""


@pytest.mark.parametrize("path", READERS)
def test_what_reads_the_rows_names_no_operator(path: str) -> None:
    tree = ast.parse((SOURCES / path).read_text(encoding="utf-8"))
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    anchors = {"Add"} if "rules" in path else set()
    allowed = NATIVE_NAMES_DIFFER if path.endswith("bind.py") else anchors
    assert words & {*OPERATORS, *step_names()} <= allowed
