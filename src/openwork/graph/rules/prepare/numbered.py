"""Elements picked by their own numbers, as an exporter writes a tensor of given strides that is as it was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import attributes, constant, dims, needed, producer
from openwork.graph.probe import Cone, cone, evaluations, named, sized
from openwork.graph.rewrite import Replacement, Rule


@dataclass(frozen=True)
class _Picked:
    node: ir.Node
    x: ir.Value
    places: Cone


def _match(node: ir.Node) -> _Picked | None:
    """A Gather from all elements of x in a row, by places that follow from shapes alone."""
    flat = producer(needed(node, 0), "Reshape", "Flatten")
    if flat is None or constant(needed(flat, 0)) is not None or attributes(node).get("axis", 0) != 0:
        return None
    if len(dims(flat.outputs[0]) or ()) != 1 or not named(needed(flat, 0)):
        return None
    places = cone(needed(node, 1))
    return None if places is None or places.sources else _Picked(node, needed(flat, 0), places)


def _check(found: _Picked) -> str | None:
    for probe, _, places in evaluations(found.places):
        shape = sized(found.x, probe.sizes)
        if not np.array_equal(places, np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)):
            return "it does not leave every element at its place"
    if found.node.outputs[0].is_graph_output():
        return "it makes an output of the graph"
    return None


def _replace(found: _Picked) -> Replacement:
    return Replacement((), [(found.node.outputs[0], found.x)])


NUMBERED = Rule("elements picked by their own numbers", frozenset({"Gather"}), _match, _check, _replace)
