"""Splitting a reduced graph into stages, each of which one back end runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from openwork.backends.backend import Backend
from openwork.graph.model import constant


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


def model_of(stage: Stage, model: ir.Model, inputs: list[ir.Value], outputs: list[ir.Value]) -> bytes:
    """The nodes of a stage as an ONNX model of their own, serialized."""
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    # Older versions of onnx-ir leave out what is known of the outputs.
    for known, port in zip((*inputs, *outputs), (*graph.inputs, *graph.outputs), strict=True):
        port.type, port.shape = known.type, known.shape
    graph.opset_imports.pop("openwork", None)
    part = ir.Model(graph, ir_version=model.ir_version, functions=tuple(model.functions.values()))
    # An engine is one file: what the model keeps in others goes into it.
    return bytes(ir.to_proto(ir.external_data.load_to_model(part)).SerializeToString())
