"""Shapes of computed values, read from the graph's inputs, so that none is kept for its shape alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import Array, attributes, constant, dims, needed, producer
from openwork.graph.probe import free_sizes
from openwork.graph.rewrite import Replacement, Rule, home, never
from openwork.graph.sums_of_sizes import Terms, terms_of


@dataclass(frozen=True)
class _Shape:
    node: ir.Node
    wanted: tuple[Terms, ...]


def _match(node: ir.Node) -> _Shape | None:
    value, found = needed(node, 0), attributes(node)
    shape = dims(value)
    if value.is_graph_input() or shape is None:
        return None
    axes = range(len(shape))[found.get("start", 0) : found.get("end")]
    free = free_sizes(value)
    wanted = [terms_of(value, axis, free) for axis in axes]
    known = tuple(terms for terms in wanted if terms is not None)
    return _Shape(node, known) if len(known) == len(wanted) else None


def _typed(node: ir.Node, length: int) -> ir.Node:
    node.outputs[0].shape, node.outputs[0].type = ir.Shape([length]), ir.TensorType(ir.DataType.INT64)
    return node


def _size(graph: ir.Graph, name: str, made: list[ir.Node]) -> ir.Value:
    """The free dimension of this name as an i64 [1], from the first input that has it."""
    source, axis = next((v, axis) for v in graph.inputs for axis, d in enumerate(dims(v) or ()) if d == name)
    shape = _typed(ir.Node("", "Shape", [source]), len(dims(source) or ()))
    index = add_initializer(graph, f"axis_{axis}", np.array([axis], np.int64))
    made += [
        shape,
        _typed(ir.Node("", "Gather", [shape.outputs[0], index], {"axis": ir.AttrInt64("axis", 0)}), 1),
    ]
    return made[-1].outputs[0]


def _sum(graph: ir.Graph, terms: Terms, made: list[ir.Node]) -> ir.Value:
    """A size as an i64 [1]."""
    parts = [
        _size(graph, term, made)
        if isinstance(term, str)
        else add_initializer(graph, f"size_{term}", np.array([term], np.int64))
        for term in terms
    ]
    total = parts[0]
    for part in parts[1:]:
        made.append(_typed(ir.Node("", "Add", [total, part]), 1))
        total = made[-1].outputs[0]
    return total


def _replace(found: _Shape) -> Replacement:
    graph = home(found.node)
    if all(isinstance(term, int) for terms in found.wanted for term in terms):
        numbers = [sum(term for term in terms if isinstance(term, int)) for terms in found.wanted]
        value = add_initializer(graph, f"{found.node.name}.shape", np.array(numbers, np.int64))
        return Replacement((), [(found.node.outputs[0], value)])
    made: list[ir.Node] = []
    parts = [_sum(graph, terms, made) for terms in found.wanted]
    made.append(_typed(ir.Node("", "Concat", parts, {"axis": ir.AttrInt64("axis", 0)}), len(parts)))
    return Replacement(made, [(found.node.outputs[0], made[-1].outputs[0])])


SHAPE_OF_INPUT = Rule("shape from inputs", frozenset({"Shape"}), _match, never, _replace)


@dataclass(frozen=True)
class _Known:
    node: ir.Node
    sizes: Array


def _match_known(node: ir.Node) -> _Known | None:
    """Sizes that are picked out of a shape, all of them fixed although others of the shape may be free."""
    shape, index = producer(needed(node, 0), "Shape"), constant(needed(node, 1))
    if shape is None or index is None or node.outputs[0].is_graph_output():
        return None
    given = attributes(shape)
    sizes = (dims(needed(shape, 0)) or ())[given.get("start", 0) : given.get("end")]
    if not all(-len(sizes) <= place < len(sizes) for place in index.reshape(-1).tolist()):
        return None
    picked = [sizes[place] for place in index.reshape(-1).tolist()]
    if not picked or not all(isinstance(size, int) for size in picked):
        return None
    return _Known(node, np.array(picked, np.int64).reshape(index.shape))


def _replace_known(found: _Known) -> Replacement:
    made = add_initializer(home(found.node), f"{found.node.name}.size", found.sizes)
    return Replacement((), [(found.node.outputs[0], made)])


KNOWN_SIZE = Rule("fixed size of a shape", frozenset({"Gather"}), _match_known, never, _replace_known)
