"""Thin helpers over onnx-ir: what a rule needs to read a graph and to make nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.engine import dtypes
from openwork.engine.operators import DOMAIN, OPERATORS, Form, Operand, infer, output_dtype, pair

Array = NDArray[Any]
Dim = int | str | None
Dims = tuple[Dim, ...]

ONNX_DOMAINS = ("", "ai.onnx")

DTYPES = {
    name: ir.DataType.STRING if dtype == np.object_ else ir.DataType.from_numpy(dtype)
    for name, dtype in dtypes.DTYPES.items()
}
"""The types of `openwork.engine.dtypes` as ONNX numbers them."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}

_CARRIED_AS = {
    "f32": (
        *("BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"),
        "FLOAT4E2M1",
    ),
    "s8": ("INT4", "INT2"),
    "u8": ("UINT4", "UINT2"),
}
CARRIED = {
    ir.DataType[name]: carrier
    for carrier, names in _CARRIED_AS.items()
    for name in names
    if name in ir.DataType.__members__
}
"""The types that NumPy lacks, and what holds all their numbers between the parts of a program."""


class ModelError(ValueError):
    """A model that cannot be read, is inconsistent, or is fed wrongly; the message says what and where."""


def carrier(dtype: ir.DataType | None) -> str | None:
    """The type that holds a value of this type outside of the nodes that compute it; None where none does."""
    return None if dtype is None else NAMES.get(dtype) or CARRIED.get(dtype)


def describe(node: ir.Node) -> str:
    """A node as messages name it: operator and name."""
    domain = "" if node.domain in ONNX_DOMAINS else f"{node.domain}."
    return f"{domain}{node.op_type} {node.name or '(unnamed)'!r}"


def is_onnx(node: ir.Node | None, *op_types: str) -> bool:
    """Whether this is a standard ONNX node of one of these types (of any, if none is given)."""
    return node is not None and node.domain in ONNX_DOMAINS and (not op_types or node.op_type in op_types)


def is_openwork(node: ir.Node | None, *op_types: str) -> bool:
    """Whether this is an openwork node of one of these types (of any, if none is given)."""
    return node is not None and node.domain == DOMAIN and (not op_types or node.op_type in op_types)


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The standard ONNX node that makes the value, if it is of one of these types."""
    node = value.producer() if value is not None else None
    return node if is_onnx(node, *op_types) else None


def lone_producer(value: ir.Value, *op_types: str) -> ir.Node | None:
    """The same, if besides only one node reads the value, once, and it is no graph output."""
    return producer(value, *op_types) if only_consumer(value) is not None else None


def native_producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The openwork node that makes the value, if it is of one of these types."""
    node = value.producer() if value is not None else None
    return node if is_openwork(node, *op_types) else None


def lone_native_producer(value: ir.Value, *op_types: str) -> ir.Node | None:
    """The same, if besides only one node reads the value, once, and it is no graph output."""
    return native_producer(value, *op_types) if only_consumer(value) is not None else None


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """The input at this place; None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def needed(node: ir.Node, index: int) -> ir.Value:
    """The input at this place, which the operator requires."""
    value = operand(node, index)
    if value is None:
        raise ModelError(f"{describe(node)} lacks its input {index}, which the operator requires.")
    return value


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initializer; None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def scalar(value: ir.Value | None) -> float | None:
    """The number in a one-element initializer; None for anything else."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def dims(value: ir.Value | None) -> Dims | None:
    """The shape: integers, names of free dimensions, None for an unknown one; None if the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def know_dims(value: ir.Value, shape: Sequence[Dim]) -> None:
    """Give the dimensions of a value that are not known those of what it stands for."""
    known = dims(value)
    if known is not None and None in known and len(known) == len(shape):
        value.shape = ir.Shape([b if a is None else a for a, b in zip(known, shape, strict=True)])


def same_dims(a: ir.Value, b: ir.Value) -> bool:
    """Whether both shapes are wholly known and equal."""
    first, second = dims(a), dims(b)
    return first is not None and first == second and None not in first


def attributes(node: ir.Node) -> dict[str, Any]:
    """The node's attributes as plain Python values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that reads the value, once; None if there are more or it is a graph output."""
    readers = [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def consumers(value: ir.Value) -> list[ir.Node]:
    """The nodes that read the value, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds the node."""
    if not isinstance(node.graph, ir.Graph):
        raise ModelError(f"{describe(node)} belongs to no graph.")
    return node.graph


def operand_of(value: ir.Value | None) -> Operand | None:
    """A value as the contract of operators sees it."""
    if value is None:
        return None
    dtype = None if value.dtype is None else NAMES.get(value.dtype, value.dtype.name)
    return Operand(dtype, dims(value), value.const_value is not None)


def make(
    op_type: str,
    inputs: Sequence[ir.Value | None] | Mapping[str, ir.Value | None],
    values: Mapping[str, Any],
    name: str,
) -> ir.Node:
    """A new openwork node with its outputs' shapes and element types; not yet in a graph.

    inputs: by slot, absent ones left out or None, or all in the order of docs/program.md. values: the
    attributes.
    """
    row = OPERATORS.get(op_type)
    if row is None:
        raise ModelError(f"{op_type} is not an openwork operator; engine/operators/rows.py lists them.")
    ordered = [inputs.get(slot.name) for slot in row.inputs] if isinstance(inputs, Mapping) else list(inputs)
    while ordered and ordered[-1] is None:
        ordered.pop()
    slots = pair(row.inputs, ordered) or []
    form = Form(values, [(slot, operand_of(value)) for slot, value in slots])
    outputs = [
        ir.Value(
            shape=None if shape is None else ir.Shape(shape),
            type=ir.TensorType(DTYPES[output_dtype(form, slot)]),
        )
        for slot, shape in zip(row.outputs, infer(row, form), strict=True)
    ]
    typed = ir.convenience.convert_attributes(dict(values))
    return ir.Node(DOMAIN, op_type, ordered, typed, outputs=outputs, name=name, version=1)


def with_attributes(node: ir.Node, **changed: Any) -> dict[str, Any]:
    """The node's attributes with some of them changed."""
    return {**attributes(node), **changed}


def topological(values: Iterable[ir.Value], stop: set[ir.Value]) -> list[ir.Node]:
    """The nodes that the values need, makers first, not looking behind the values in `stop`."""
    order: dict[ir.Node, None] = {}
    pending: list[tuple[ir.Node, bool]] = [
        (node, False) for value in values if value not in stop and (node := value.producer()) is not None
    ]
    while pending:
        node, ready = pending.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
            continue
        pending.append((node, True))
        for value in node.inputs:
            maker = value.producer() if value is not None and value not in stop else None
            if maker is not None and maker not in order:
                pending.append((maker, False))
    return list(order)
