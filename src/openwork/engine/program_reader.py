"""Reading a program from an untrusted file: everything that docs/program.md demands, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from openwork.engine.operators import ACTIVATIONS, QUANTIZATION, Operator, Slot
from openwork.engine.program import FALLBACK, VALUE_DTYPES, Choice, Named, Program, Step, Value
from openwork.engine.shapes import OPERATOR_OF_STEP, Dim, Letters, Shape, operator_of, slot_dtype
from openwork.support.fields import EngineFileError, Field

_SMALLEST_SCALE, _LARGEST = 1.1754944e-38, 3.4028235e38
_MOST_ELEMENTS = 2**31 - 1

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
    values = tuple(_read_value(item) for item in members["values"].items())
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
    _check_free_dimensions(members["values"], values, inputs, steps)
    return Program(inputs, outputs, values, tuple(steps))


def _read_value(item: Field) -> Value:
    members = item.object(frozenset({"dtype", "shape"}))
    dtype = members["dtype"].choice(VALUE_DTYPES)
    shape = tuple(_read_dim(dim) for dim in members["shape"].items())
    if len(shape) > 8:
        members["shape"].refuse("at most 8 dimensions")
    if math.prod(dim for dim in shape if isinstance(dim, int)) > _MOST_ELEMENTS:
        members["shape"].refuse(f"at most {_MOST_ELEMENTS} elements")
    return Value(dtype, shape)


def _read_dim(item: Field) -> Dim:
    if isinstance(item.value, str):
        return item.text(longest=256)
    return item.integer(0, _MOST_ELEMENTS)


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
    op = members["op"].choice((*OPERATOR_OF_STEP, FALLBACK))
    step = Step(
        op,
        members["name"].text(),
        tuple(_read_index(index, len(values)) for index in members["inputs"].items()),
        tuple(_read_index(index, len(values)) for index in members["outputs"].items()),
        {name: tensor.text() for name, tensor in members["tensors"].members().items()},
        {name: attribute.value for name, attribute in members["attributes"].members().items()},
        members["pattern"].text() if "pattern" in members and members["pattern"].value is not None else None,
        _read_tactics(members["tactics"]) if "tactics" in members else (),
        members["backend"].text(longest=64),
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
        choices.append(
            Choice(
                None if bound.value is None else bound.integer(1, _MOST_ELEMENTS), members["tactic"].text()
            )
        )
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
    members["tensors"].object(frozenset({"model"}))
    members["attributes"].object(frozenset())
    if None in step.inputs or None in step.outputs or not step.outputs:
        members["outputs"].refuse("values only, and at least one")
    dtype, shape = tensor_shape(members["tensors"].members()["model"], None, 0)
    if dtype != "u8" or len(shape) != 1:
        members["tensors"].refuse("a model stored as u8 in one dimension")


def _check_operator(
    members: dict[str, Field], step: Step, values: tuple[Value, ...], tensor_shape: TensorShape
) -> None:
    row = check_attributes(members["attributes"], step.op)
    if (step.op == "linear") != bool(step.tactics):
        members["op"].refuse("'tactics' with the operator linear and with no other")
    if step.pattern is not None and step.op != "linear":
        members["pattern"].refuse("no pattern but with the operator linear")
    letters = Letters(lambda a, b: a == b)
    _check_slots(members["inputs"], row.activations, step.inputs, values, step, letters)
    width = (values[step.inputs[0] or 0].shape or (0,))[-1]

    def shape_of(item: Field, name: str) -> tuple[str, Shape]:
        return tensor_shape(item, step.pattern if name == "weight" else None, width)

    _check_tensors(members["tensors"], row, step, letters, shape_of)
    _check_slots(members["outputs"], row.outputs, step.outputs, values, step, letters)
    _check_presence(members, step)
    if step.op == "attention":
        _check_heads(members["attributes"].members()["heads"], values[step.outputs[0] or 0].shape[2])


def _check_heads(heads: Field, width: Dim) -> None:
    if not isinstance(width, int) or width % heads.value:
        heads.refuse(f"a divisor of the width {width}")


def check_attributes(attributes: Field, op: str) -> Operator:
    """Check the attributes of an operator and return its row of the table."""
    row = operator_of(op, attributes.value if isinstance(attributes.value, dict) else {})
    optional = frozenset(QUANTIZATION) if row.quantizes and op != "quantize" else frozenset()
    optional |= frozenset(row.optional)
    required = frozenset(row.attributes) | (frozenset(QUANTIZATION) if op == "quantize" else frozenset())
    members = attributes.object(required, optional)
    for name, member in members.items():
        _CHECKS[name](member)
    if ("y_scale" in members) != ("y_zero_point" in members):
        attributes.refuse("'y_scale' and 'y_zero_point' together or neither")
    if "activation" in members:
        _check_ending(attributes, members)
    return row


def _check_ending(attributes: Field, members: dict[str, Field]) -> None:
    """The numbers of the activation, and those of a u8 residual."""
    name = members["activation"].value
    numbers = set(ACTIVATIONS[name])
    if numbers != {number for number in ("alpha", "beta") if number in members}:
        attributes.refuse(f"exactly the numbers {sorted(numbers)} with the activation {name}")
    if ("residual_scale" in members) != ("residual_zero_point" in members):
        attributes.refuse("'residual_scale' and 'residual_zero_point' together or neither")
    if name == "clip" and members["alpha"].value > members["beta"].value:
        members["alpha"].refuse("at most 'beta', the other end of the clip")


def _scale(item: Field) -> None:
    item.number(_SMALLEST_SCALE, _LARGEST)


def _zero_point(item: Field) -> None:
    item.integer(0, 255)


_CHECKS: dict[str, Callable[[Field], Any]] = {
    "x_scale": _scale,
    "y_scale": _scale,
    "scale": _scale,
    "x_zero_point": _zero_point,
    "y_zero_point": _zero_point,
    "epsilon": lambda item: item.number(0.0, _LARGEST),
    "heads": lambda item: item.integer(1, 65535),
    "packed": lambda item: item.integer(0, 1),
    "activation": lambda item: item.choice(tuple(ACTIVATIONS)),
    "activation_last": lambda item: item.integer(0, 1),
    "alpha": lambda item: item.number(-_LARGEST, _LARGEST),
    "beta": lambda item: item.number(-_LARGEST, _LARGEST),
    "residual_scale": _scale,
    "residual_zero_point": _zero_point,
}


def _check_slots(
    array: Field,
    slots: tuple[Slot, ...],
    indices: tuple[int | None, ...],
    values: tuple[Value, ...],
    step: Step,
    letters: Letters,
) -> None:
    if len(indices) != len(slots):
        array.refuse(f"{len(slots)} entries ({', '.join(slot.name for slot in slots)}) for {step.op}")
    for slot, index, item in zip(slots, indices, array.items(), strict=True):
        if index is None:
            if not slot.optional:
                item.refuse(f"a value for '{slot.name}' of {step.op}")
            continue
        value, dtype = values[index], slot_dtype(slot, step.attributes)
        if value.dtype != dtype or not letters.match(slot.shape, value.shape):
            found = f"{value.dtype} {list(value.shape)}"
            raise EngineFileError(
                f"{item.file}: field '{item.path}': expected '{slot.name}' of step '{step.name}' to be "
                f"{dtype} [{','.join(slot.shape)}] in agreement with the step's other shapes, found {found}."
            )


def _check_tensors(
    tensors: Field,
    row: Operator,
    step: Step,
    letters: Letters,
    shape_of: Callable[[Field, str], tuple[str, Shape]],
) -> None:
    optional = frozenset(slot.name for slot in row.tensors if slot.optional)
    members = tensors.object(frozenset(slot.name for slot in row.tensors) - optional, optional)
    for slot in row.tensors:
        if slot.name not in members:
            continue
        dtype, shape = shape_of(members[slot.name], slot.name)
        if dtype not in slot.dtypes or not letters.match(slot.shape, shape):
            raise EngineFileError(
                f"{tensors.file}: field '{members[slot.name].path}': expected '{slot.name}' of step "
                f"'{step.name}' to "
                f"be {slot.dtypes[0]} [{','.join(slot.shape)}] in agreement with the step's other shapes, "
                f"found {dtype} {list(shape)}."
            )


def _check_presence(members: dict[str, Field], step: Step) -> None:
    """What one part of a step demands of another: types with type ids, a scale with a quantized output."""
    if step.op == "embedding_sum" and ("type" in step.tensors) != (step.inputs[1] is not None):
        members["tensors"].refuse("'type' exactly where the step has type ids")
    if "y_multiplier" in step.tensors and "y_scale" not in step.attributes:
        members["tensors"].refuse("'y_multiplier' only where the step has a 'y_scale'")
    if step.op == "layer_norm":
        if ("y_scale" in step.attributes) != (step.outputs[1] is not None):
            members["attributes"].refuse("'y_scale' exactly where the step has the output 'yq'")
        if step.outputs == (None, None):
            members["outputs"].refuse("'y' or 'yq' or both")


def _check_free_dimensions(
    array: Field, values: tuple[Value, ...], inputs: tuple[Named, ...], steps: list[Step]
) -> None:
    """Every free dimension must be readable from an input, or from what a fallback step returns."""
    readable = {named.value for named in inputs}
    readable |= {
        index for step in steps if step.op == FALLBACK for index in step.outputs if index is not None
    }
    names = {dim for index in readable for dim in values[index].shape if isinstance(dim, str)}
    for value, item in zip(values, array.items(), strict=True):
        for dim in value.shape:
            if isinstance(dim, str) and dim not in names:
                item.refuse("free dimensions that an input has")
