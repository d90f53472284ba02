"""The inputs and outputs of a model: which an engine can have, and names that all of the graph can use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from openwork.graph.model import ModelError, carrier, dims

LONGEST = 64
"""Characters of a free dimension's name."""


def check_ports(model: ir.Model, where: str) -> None:
    """Raise ModelError for an input or output that is no tensor, or one of a type that no engine takes."""
    initializers = set(model.graph.initializers)
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    for role, values in (("input", inputs), ("output", model.graph.outputs)):
        for value in values:
            _check(value, f"{where}: the {role} {value.name!r}")


def _check(value: ir.Value, which: str) -> None:
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        kind = type(value.type).__name__.removesuffix("Type").lower()
        raise ModelError(
            f"{which} is a {kind}, but an engine takes and gives tensors alone; let the model take or give "
            "the tensors one by one (Optional and sequence operators inside of it are no hindrance)."
        )
    # The types of outputs may be left to inference.
    if value.type is None and not value.is_graph_input():
        return
    if value.dtype is None or carrier(value.dtype) is None:
        found = "no element type" if value.dtype is None else f"the element type {value.dtype.name}"
        raise ModelError(f"{which} has {found}, which no engine takes or gives; add a Cast to the model.")


def name_dimensions(graph: ir.Graph) -> None:
    """Give every free dimension of the inputs a name that is an identifier and not too long.

    An unnamed one gets a name of its own. The others keep theirs where they can; the graph's other values
    follow.
    """
    renamed: dict[str, str] = {}
    for value in (*graph.inputs, *_values(graph)):
        _forget_negative(value)
    taken = {d for value in graph.inputs for d in dims(value) or () if isinstance(d, str)}
    for value in graph.inputs:
        shape = dims(value)
        if shape is not None:
            value.shape = ir.Shape(
                _named(d, f"{value.name}_{axis}", renamed, taken) for axis, d in enumerate(shape)
            )
    if renamed:
        for value in _values(graph):
            shape = dims(value)
            if shape is not None and any(d in renamed for d in shape):
                value.shape = ir.Shape(renamed.get(d, d) if isinstance(d, str) else d for d in shape)


def _forget_negative(value: ir.Value) -> None:
    """A negative size, which some exporters write for a free one, says nothing."""
    shape = dims(value)
    if shape is not None and any(isinstance(d, int) and d < 0 for d in shape):
        value.shape = ir.Shape(None if isinstance(d, int) and d < 0 else d for d in shape)


def _named(dim: int | str | None, otherwise: str, renamed: dict[str, str], taken: set[str]) -> int | str:
    if isinstance(dim, int) or (dim and dim.isidentifier() and len(dim) <= LONGEST):
        return dim
    if dim and dim in renamed:
        return renamed[dim]
    name = _unique(_identifier(dim or otherwise), taken)
    taken.add(name)
    if dim:
        renamed[dim] = name
    return name


def _identifier(text: str) -> str:
    plain = re.sub(r"\W", "_", text)[:LONGEST]
    return plain if plain.isidentifier() else f"_{plain}"


def _unique(name: str, taken: Iterable[str]) -> str:
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def copy_stored_outputs(graph: ir.Graph) -> None:
    """Let a node make each output that is an initializer, since steps give what they made."""
    for index, value in enumerate(graph.outputs):
        if value.const_value is None or value.is_graph_input():
            continue
        node = ir.node("Identity", [value], name=f"{value.name}.given")
        given, name = node.outputs[0], value.name
        given.type, given.shape = value.type, value.shape
        graph.outputs[index] = given
        graph.append(node)
        del graph.initializers[str(name)]
        value.name = f"{name}.stored"
        graph.register_initializer(value)
        given.name = name


def name_nodes(model: ir.Model) -> None:
    """Give every node, those of subgraphs too, a name that no other has."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.all_nodes()):
        node.name = _unique(node.name or f"{node.op_type}_{index}", taken)
        taken.add(node.name)
