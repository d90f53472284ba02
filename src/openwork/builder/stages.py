"""Splitting a reduced graph into stages, each of which one back end runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.backends.backend import Backend
from openwork.engine.program import data_slot
from openwork.graph.model import CARRIED, DTYPES, NAMES, constant
from openwork.graph.ports import name_nodes
from openwork.graph.versions import FREE_INITIALIZERS

STORED_FROM = 1 << 16
"""Bytes from which on a tensor of a part is a tensor of the engine, and not of the part's own message."""
_NOTHING = ir.tensor(np.zeros(1, np.uint8))


@dataclass(frozen=True)
class Placed:
    """The back end that runs a node, by its number, or None; and why those before it do not."""

    backend: int | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """Nodes in execution order, all for one back end."""

    backend: Backend
    nodes: tuple[ir.Node, ...]


def place(node: ir.Node, backends: Sequence[Backend]) -> Placed:
    """The first of the back ends that runs a node."""
    reasons: list[str] = []
    for number, backend in enumerate(backends):
        reason = backend.refusal(node)
        if reason is None:
            return Placed(number, tuple(reasons))
        reasons.append(reason)
    return Placed(None, tuple(reasons))


def split(graph: ir.Graph, backends: Sequence[Backend], kinds: dict[ir.Node, int]) -> list[Stage]:
    """The fewest stages, in an order in which they can run one after another.

    kinds : for each node the number of its back end. A node stands in the first stage of its kind that no
    producer of its inputs comes after; the stages of a back end are every so many.
    """
    stage_of: dict[ir.Node, int] = {}
    for node in graph:
        producers = (value.producer() for value in read_values(node))
        earliest = max((stage_of[p] for p in producers if p is not None and p in stage_of), default=0)
        stage_of[node] = earliest + (kinds[node] - earliest) % len(backends)
    numbers = sorted(set(stage_of.values()))
    return [
        Stage(backends[n % len(backends)], tuple(node for node in graph if stage_of[node] == n))
        for n in numbers
    ]


def read_values(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads, those that its subgraphs capture among them."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        for inner in _subgraphs(attribute):
            own = (
                {value for n in inner for value in n.outputs}
                | set(inner.inputs)
                | set(inner.initializers.values())
            )
            for n in inner:
                yield from (value for value in read_values(n) if value not in own)


def _subgraphs(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def boundary(stage: Stage, graph: ir.Graph) -> tuple[list[ir.Value], list[ir.Value]]:
    """The values that a stage takes from outside, initializers aside, and those that something outside
    reads."""
    inside = set(stage.nodes)
    made = dict.fromkeys(value for node in stage.nodes for value in node.outputs)
    read = dict.fromkeys(value for node in stage.nodes for value in read_values(node))
    wanted = {value for node in graph if node not in inside for value in read_values(node)} | set(
        graph.outputs
    )
    inputs = [value for value in read if value not in made and constant(value) is None]
    return inputs, [value for value in made if value in wanted]


def carry(graph: ir.Graph) -> None:
    """Let values of a type that NumPy lacks pass the graph's border as what holds them, behind Casts."""
    first, casts = next(iter(graph), None), []
    for index, port in enumerate(graph.inputs):
        if port.dtype in CARRIED:
            taken = ir.Value(
                name=port.name, shape=port.shape, type=ir.TensorType(DTYPES[CARRIED[port.dtype]])
            )
            graph.inputs[index] = taken
            port.name = f"{port.name}.as.{port.dtype.name.lower()}"
            cast = _cast(taken, port.dtype)
            port.replace_all_uses_with(cast.outputs[0])
            cast.outputs[0].name, cast.outputs[0].shape = port.name, port.shape
            casts.append(cast)
    if first is not None:
        graph.insert_before(first, casts)
    else:
        graph.extend(casts)
    for index, port in enumerate(graph.outputs):
        if port.dtype in CARRIED:
            cast = _cast(port, DTYPES[CARRIED[port.dtype]])
            given = cast.outputs[0]
            given.name, given.shape = port.name, port.shape
            port.name = f"{port.name}.as.{port.dtype.name.lower()}"
            graph.outputs[index] = given
            graph.append(cast)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{value.name}.cast")
    node.outputs[0].type = ir.TensorType(dtype)
    return node


def model_of(
    stage: Stage, model: ir.Model, inputs: list[ir.Value], outputs: list[ir.Value]
) -> tuple[bytes, list[NDArray[Any]]]:
    """The nodes of a stage as an ONNX model of their own, serialized, as its back end takes it; and the
    contents of its large tensors, which stand beside it.

    Raises ValueError where the rest is larger than a message can be.
    """
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    # Older versions of onnx-ir leave out what is known of the outputs.
    for known, port in zip((*inputs, *outputs), (*graph.inputs, *graph.outputs), strict=True):
        port.type, port.shape = known.type, known.shape
    used = {node.domain for node in graph.all_nodes()} | {""}
    for domain in graph.opset_imports.keys() - used:
        del graph.opset_imports[domain]
    carry(graph)
    version = max(model.ir_version or 0, FREE_INITIALIZERS)
    part = ir.Model(graph, ir_version=version, functions=tuple(model.functions.values()))
    # A rule may have made two nodes of one.
    name_nodes(part)
    stored = _take_out(part)
    content = bytes(stage.backend.adapted(ir.to_proto(part)).SerializeToString())
    return content, stored


def _stored_as(tensor: ir.TensorProtocol) -> bool:
    """Whether NumPy has the tensor's type, and each element bytes of its own."""
    return tensor.dtype in NAMES and tensor.dtype != ir.DataType.STRING


def _take_out(part: ir.Model) -> list[NDArray[Any]]:
    """The contents of the large initializers, which stand elsewhere from now on; an engine is one file, so
    all else that the model keeps in others goes into the part."""
    taken: dict[ir.Value, ir.TensorProtocol] = {}
    for value in part.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= STORED_FROM and _stored_as(tensor):
            taken[value] = tensor
            value.const_value = _NOTHING
    ir.external_data.load_to_model(part)
    for number, (value, tensor) in enumerate(taken.items()):
        value.const_value = ir.ExternalTensor(
            data_slot(number),
            None,
            None,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(value.name),
        )
    return [np.asarray(tensor.numpy(), order="C") for tensor in taken.values()]
