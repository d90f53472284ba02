"""Reading a program from an untrusted file: everything that docs/program.md demands, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from openwork.engine.operators import (
    Form,
    Operand,
    Operator,
    Problem,
    Slot,
    attribute_problem,
    examine,
    pair,
    row_of_step,
    step_names,
)
from openwork.engine.problem import Tactic
from openwork.engine.program import FALLBACK, MODEL, Choice, Named, Program, Step, Value, data_slot
from openwork.engine.program_values import (
    MOST_ELEMENTS,
    check_count,
    check_free_dimensions,
    read_value,
)
from openwork.engine.shapes import Dim, Shape
from openwork.engine.weights import matrix_width, shape_of
from openwork.support.fields import EngineFileError, Field

TensorShape = Callable[[Field, str | None, Dim], tuple[str, Shape]]
"""Given where its name stands, the pattern of its compressed form or None, and the last dimension of the
step's first input: the type and logical shape of a stored tensor."""


def read_program(document: Field, tensor_shape: TensorShape) -> Program:
    """Check a program's JSON completely and return it.

    document : the parsed JSON of docs/program.md, from an untrusted file.
    tensor_shape : looks up a step's stored tensor; raises EngineFileError where there is none.
    raises EngineFileError naming the field, what was expected and what was found.
    """
    members = document.object(frozenset({"inputs", "outputs", "values", "steps"}))
    check_count(members)
    values = tuple(read_value(item) for item in members["values"].items())
    inputs = _read_named(members["inputs"], len(values))
    made = {named.value for named in inputs}
    if len(made) != len(inputs):
        members["inputs"].refuse("a different value for each input")
    steps = [_read_step(item, values, made, tensor_shape) for item in members["steps"].items()]
    outputs = _read_named(members["outputs"], len(values))
    if not outputs:
        members["outputs"].refuse("at least one output")
    for named, item in zip(outputs, members["outputs"].items(), strict=True):
        if named.value not in made:
            item.refuse("a value that a step makes or that is an input")
    check_free_dimensions(members["values"], values, inputs, steps)
    return Program(inputs, outputs, values, tuple(steps))


def _read_named(array: Field, values: int) -> tuple[Named, ...]:
    result = []
    for item in array.items():
        members = item.object(frozenset({"name", "value"}))
        result.append(Named(members["name"].text(), members["value"].integer(0, values - 1)))
    if len({named.name for named in result}) != len(result):
        array.refuse("a different name for each entry")
    return tuple(result)


def _read_step(item: Field, values: tuple[Value, ...], made: set[int], tensor_shape: TensorShape) -> Step:
    members = item.object(
        frozenset({"op", "name", "inputs", "outputs", "tensors", "attributes", "backend"}),
        frozenset({"pattern", "tactics"}),
    )
    op = members["op"].choice((*step_names(), FALLBACK))
    pattern = members.get("pattern")
    step = Step(
        op=op,
        name=members["name"].text(),
        inputs=tuple(_read_index(index, len(values)) for index in members["inputs"].items()),
        outputs=tuple(_read_index(index, len(values)) for index in members["outputs"].items()),
        tensors={name: tensor.text() for name, tensor in members["tensors"].members().items()},
        attributes={name: attribute.value for name, attribute in members["attributes"].members().items()},
        pattern=None if pattern is None or pattern.value is None else pattern.text(),
        tactics=_read_tactics(members["tactics"]) if "tactics" in members else (),
        backend=members["backend"].text(longest=64),
    )
    _check_order(members, step, made)
    if op == FALLBACK:
        _check_fallback(members, step, tensor_shape)
    else:
        _check_operator(members, step, values, tensor_shape)
    return step


def _read_index(item: Field, values: int) -> int | None:
    return None if item.value is None else item.integer(0, values - 1)


def _read_tactics(array: Field) -> tuple[Choice, ...]:
    choices = []
    for item in array.items():
        members = item.object(frozenset({"max_rows", "tactic"}))
        bound = members["max_rows"]
        most = None if bound.value is None else bound.integer(1, MOST_ELEMENTS)
        choices.append(Choice(most, _read_tactic(members["tactic"])))
    bounds = [choice.max_rows for choice in choices]
    finite = [bound for bound in bounds[:-1] if bound is not None]
    if (
        not bounds
        or bounds[-1] is not None
        or len(finite) != len(bounds) - 1
        or finite != sorted(set(finite))
    ):
        array.refuse("'max_rows' that increase and end with null")
    return tuple(choices)


def _read_tactic(item: Field) -> str:
    text = item.text()
    try:
        Tactic.parse(text)
    except ValueError:
        item.refuse("the text of a tactic, like 'window8' or 'f32:dense'")
    return text


def _check_order(members: dict[str, Field], step: Step, made: set[int]) -> None:
    for index, item in zip(step.inputs, members["inputs"].items(), strict=True):
        if index is not None and index not in made:
            item.refuse("a value that an earlier step makes or that is an input")
    for index, item in zip(step.outputs, members["outputs"].items(), strict=True):
        if index is not None and index in made:
            item.refuse("a value that nothing before has made")
        if index is not None:
            made.add(index)


def _check_fallback(members: dict[str, Field], step: Step, tensor_shape: TensorShape) -> None:
    tensors = members["tensors"].members()
    slots = {MODEL, *(data_slot(number) for number in range(len(tensors) - 1))}
    members["tensors"].object(frozenset(slots))
    members["attributes"].object(frozenset())
    if None in step.inputs or None in step.outputs or not step.outputs:
        members["outputs"].refuse("values only, and at least one")
    for tensor in tensors.values():
        dtype, shape = tensor_shape(tensor, None, 0)
        if dtype != "u8" or len(shape) != 1:
            members["tensors"].refuse("a model and its data stored as u8 in one dimension")


def _check_operator(
    members: dict[str, Field], step: Step, values: tuple[Value, ...], tensor_shape: TensorShape
) -> None:
    row = row_of_step(step.op)
    if row is None:
        members["op"].refuse("the name of an operator")
    if bool(row.weighted) != bool(step.tactics):
        members["op"].refuse("'tactics' with an operator that has a weight and with no other")
    if step.pattern is not None and not row.weighted:
        members["pattern"].refuse("no pattern but with an operator that has a weight")
    attributes = members["attributes"]
    if (wrong := attribute_problem(row, step.attributes)) is not None:
        _refuse(attributes.members().get(wrong.place, attributes), step, wrong)
    inputs = _operands(members["inputs"], row.activations, step.inputs, values, step)
    outputs = _operands(members["outputs"], row.outputs, step.outputs, values, step)
    width = (values[step.inputs[0] or 0].shape or (0,))[-1]
    if isinstance(width, int):
        width = matrix_width(step.attributes, width)

    def stored(item: Field, name: str) -> Operand:
        pattern = step.pattern if name == row.weighted else None
        dtype, shape = tensor_shape(item, pattern, width)
        if pattern is None:
            return Operand(dtype, shape, True)
        rows, columns = shape
        whole = shape_of(step.attributes, int(rows), int(columns))
        if whole is None:
            item.refuse(
                f"a row for each of the taps {list(step.attributes['kernel'])} of each output channel"
            )
        return Operand(dtype, whole, True)

    tensors = _tensors(members["tensors"], row, stored)
    found = examine(row, Form(step.attributes, [*inputs, *tensors], outputs), lambda a, b: a == b)
    if isinstance(found, Problem):
        _refuse(_place(members, row, found.place), step, found)


def _refuse(item: Field, step: Step, problem: Problem) -> NoReturn:
    raise EngineFileError(
        f"{item.file}: field '{item.path}': expected '{problem.place}' of step '{step.name}' to be "
        f"{problem.expected}, found {problem.found[:80]}."
    )


def _place(members: dict[str, Field], row: Operator, name: str) -> Field:
    """The field that holds a slot or an attribute, or would hold it."""
    for kind, slots in (("inputs", row.activations), ("outputs", row.outputs)):
        places = {slot.name: item for slot, item in zip(slots, members[kind].items(), strict=False)}
        if name in places:
            return places[name]
    for kind in ("attributes", "tensors"):
        if name in members[kind].members():
            return members[kind].members()[name]
    return (
        members["tensors"] if row.input_index(name) is not None else members.get(name, members["attributes"])
    )


def _operands(
    array: Field,
    slots: tuple[Slot, ...],
    indices: tuple[int | None, ...],
    values: tuple[Value, ...],
    step: Step,
) -> list[tuple[Slot, Operand | None]]:
    """Each slot with its value; as many entries as there are slots, or more for a variadic one."""
    held = [None if index is None else Operand(*values[index]) for index in indices]
    paired = pair(slots, held)
    if paired is None or len(held) < len(slots):
        array.refuse(f"{len(slots)} entries ({', '.join(slot.name for slot in slots)}) for {step.op}")
    return paired


def _tensors(
    tensors: Field, row: Operator, stored: Callable[[Field, str], Operand]
) -> list[tuple[Slot, Operand | None]]:
    members = tensors.object(frozenset(), frozenset(slot.name for slot in row.tensors))
    return [
        (slot, stored(members[slot.name], slot.name) if slot.name in members else None)
        for slot in row.tensors
    ]
