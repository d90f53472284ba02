"""A model without its large tensors, for what takes it as one message of at most two gigabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import onnx_ir as ir

LARGE = 1024
"""Bytes from which on a tensor is left out; what shapes and axes are computed from is smaller."""


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model as a message, in which large initializers are inputs, which have a type and a shape but no
    data.

    Raises onnx-ir's SerdeError where it cannot be written.
    """
    with _without_data(model):
        return ir.to_proto(model)


def large_tensors(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The tensors that a skeleton leaves out, by their names."""
    return {str(value.name): tensor for value, tensor in _large(model).items()}


def refill(model: ir.Model, tensors: Mapping[str, ir.TensorProtocol]) -> None:
    """Put the large tensors back into a model that was read from a skeleton."""
    graph = model.graph
    kept = [value for value in graph.inputs if value.name not in tensors]
    stored = [value for value in graph.inputs if value.name in tensors]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in stored:
        value.const_value = tensors[str(value.name)]
        graph.register_initializer(value)


def _large(model: ir.Model) -> dict[ir.Value, ir.TensorProtocol]:
    return {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= LARGE
    }


@contextmanager
def _without_data(model: ir.Model) -> Iterator[None]:
    graph, held = model.graph, _large(model)
    ports = len(graph.inputs)
    for value, tensor in held.items():
        value.shape = value.shape or ir.Shape(tensor.shape.numpy())
        value.type = value.type or ir.TensorType(tensor.dtype)
        graph.initializers.pop(str(value.name))
        if not value.is_graph_input():
            graph.inputs.append(value)
    try:
        yield
    finally:
        while len(graph.inputs) > ports:
            graph.inputs.pop()
        for value, tensor in held.items():
            value.const_value = tensor
            graph.register_initializer(value)
