"""Nodes by the names of their operator's slots, as the table of operators gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_ir as ir

from openwork.engine.operators import OPERATORS, Attribute, Form, Operator, Slot, attribute_problem, pair
from openwork.engine.program import MOST_AXES
from openwork.graph.model import (
    ModelError,
    attributes,
    constant,
    describe,
    dims,
    is_openwork,
    make,
    operand_of,
)


def row_of(node: ir.Node) -> Operator:
    """The row of a node's operator; raises ModelError where it has none."""
    row = OPERATORS.get(node.op_type) if is_openwork(node) else None
    if row is None:
        raise ModelError(
            f"{describe(node)} is not an operator of openwork; engine/operators/rows.py lists them."
        )
    return row


def slot(node: ir.Node, name: str) -> ir.Value | None:
    """The input in the slot of this name; None where it is absent or the operator has no such slot."""
    index = row_of(node).input_index(name)
    return None if index is None or index >= len(node.inputs) else node.inputs[index]


def filled(node: ir.Node, name: str) -> ir.Value:
    """The input in the slot of this name, which the operator requires."""
    value = slot(node, name)
    if value is None:
        raise ModelError(f"{describe(node)} lacks its input {name!r}, which the operator requires.")
    return value


def output(node: ir.Node, name: str) -> ir.Value:
    """The output of this name, which the operator has."""
    index = row_of(node).output_index(name)
    if index is None:
        raise ModelError(f"{describe(node)} has no output {name!r}.")
    return node.outputs[index]


def slots(node: ir.Node) -> dict[str, ir.Value]:
    """Every input that is there, by its slot; raises ModelError for an operator of any number of inputs."""
    row = row_of(node)
    if row.inputs[-1].variadic:
        raise ModelError(f"{describe(node)} takes any number of inputs, so its slots do not name them.")
    return {
        entry.name: value for entry, value in zip(row.inputs, node.inputs, strict=False) if value is not None
    }


def rebuilt(node: ir.Node, changed: Mapping[str, ir.Value | None], name: str = "", **values: Any) -> ir.Node:
    """The same operator with some slots and attributes changed, under its own name or another one."""
    inputs = {**slots(node), **changed} if changed or not row_of(node).inputs[-1].variadic else node.inputs
    return make(node.op_type, inputs, {**attributes(node), **values}, name or node.name or "")


def has_epilogue(node: ir.Node | None) -> bool:
    """Whether this is a node that what follows may go into."""
    return node is not None and is_openwork(node) and row_of(node).epilogue


def refused_numbers(node: ir.Node) -> str | None:
    """Why an operator does not take the attributes that a rule read from the model; None where it does."""
    problem = attribute_problem(row_of(node), attributes(node)) if is_openwork(node) else None
    if problem is None:
        return None
    return f"the {problem.place} of {node.op_type} must be {problem.expected}, but it is {problem.found}"


def refused_operand(node: ir.Node, made: Collection[ir.Node]) -> str | None:
    """Why a native step cannot read what a rule would give it; None where it can.

    made: the nodes that come with it, whose results are known once they stand in the graph.
    """
    if not is_openwork(node):
        return None
    for entry, value in _paired(node, row_of(node).inputs, node.inputs):
        if value is None or value.producer() in made:
            continue
        if entry.tensor:
            if 0 in (dims(value) or ()):
                return f"it reads {value.name!r} of shape {list(dims(value) or ())}, which is empty"
            continue
        if constant(value) is not None:
            return f"it reads {value.name!r}, which is stored; a native step reads computed values"
        shape = dims(value)
        if value.dtype is None or shape is None:
            return f"the type and the number of axes of {value.name!r}, which it reads, are not known"
        if not 1 <= len(shape) <= MOST_AXES or 0 in shape:
            taken = f"a native step takes 1 to {MOST_AXES} axes, none of size 0"
            return f"it reads {value.name!r} of shape {list(shape)}; {taken}"
    return None


def reads_stored(node: ir.Node, index: int) -> bool:
    """Whether a node may read a stored tensor as its input of this number: every one of ONNX may, and an
    operator of openwork in the slots of its tensors."""
    if not is_openwork(node):
        return True
    entries = row_of(node).inputs
    return entries[min(index, len(entries) - 1)].tensor


def is_read(value: ir.Value) -> bool:
    """Whether a node or the graph's outputs read the value."""
    return bool(value.uses()) or value.is_graph_output()


def form_of(node: ir.Node) -> Form:
    """A node as the contract sees it, without what serves only outputs that nobody reads.

    Raises ModelError where it has more inputs or outputs than its operator.
    """
    row, values = row_of(node), attributes(node)
    inputs, outputs = _paired(node, row.inputs, node.inputs), _paired(node, row.outputs, node.outputs)
    read = [(entry, value if value is not None and is_read(value) else None) for entry, value in outputs]
    if any(value is not None for _, value in read):
        idle = _idle(row, {entry.name for entry, value in read if value is None})
    else:
        read, idle = [], set()
    return Form(
        {name: value for name, value in values.items() if name not in idle},
        [(entry, None if entry.name in idle else operand_of(value)) for entry, value in inputs],
        [(entry, operand_of(value)) for entry, value in read],
    )


def _paired(node: ir.Node, entries: tuple[Slot, ...], values: Any) -> list[tuple[Slot, ir.Value | None]]:
    paired: list[tuple[Slot, ir.Value | None]] | None = pair(entries, list(values))
    if paired is None:
        kind = "inputs" if values is node.inputs else "outputs"
        raise ModelError(
            f"{describe(node)} has {len(values)} {kind}, but {node.op_type} takes {len(entries)}."
        )
    return paired


def _idle(row: Operator, unread: set[str]) -> set[str]:
    """The attributes and inputs that are there only for outputs that nobody reads."""
    idle = {name for entry in row.outputs if entry.name in unread for name in entry.needs}
    entries: tuple[Attribute | Slot, ...] = (*row.attributes, *row.inputs)
    while more := {entry.name for entry in entries if idle & set(entry.needs)} - idle:
        idle |= more
    return idle
