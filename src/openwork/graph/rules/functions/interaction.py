"""The products of all pairs of some vectors, beside the first of these, into Interaction.

Exporters pick the strict lower triangle of the products in many ways (by pairs of indices, by one index into
the flat products, through transposes); what a Concat makes of them is found by computing it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import (
    Array,
    ModelError,
    attributes,
    consumers,
    dims,
    is_onnx,
    make,
    needed,
    producer,
)
from openwork.graph.numerics.tables import interaction
from openwork.graph.probe import Cone, Probe, cone, evaluations
from openwork.graph.rewrite import Replacement, Rule

_MOST_NODES = 40


@dataclass(frozen=True)
class _Pairs:
    """vectors: [B, F, D], whose pairs are multiplied. parts: what stands side by side there, each [B, D]."""

    node: ir.Node
    vectors: ir.Value
    parts: tuple[ir.Value, ...]
    equal: bool


def _square(value: ir.Value) -> ir.Value | None:
    """The vectors of which a MatMul makes all products: x in x x^T."""
    node = producer(value, "MatMul")
    if node is None:
        return None
    x, turned = needed(node, 0), producer(needed(node, 1), "Transpose")
    if turned is None or needed(turned, 0) is not x or len(dims(x) or ()) != 3:
        return None
    return x if list(attributes(turned).get("perm", ())) == [0, 2, 1] else None


def _vectors(root: ir.Node) -> ir.Value | None:
    """The vectors whose products a Concat reads, through what moves them."""
    pending, seen = [value for value in root.inputs if value is not None], 0
    while pending and seen < _MOST_NODES:
        value = pending.pop()
        seen += 1
        found = _square(value)
        if found is not None:
            return found
        node = producer(
            value, "Gather", "GatherND", "Transpose", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Slice"
        )
        if node is not None:
            pending.append(needed(node, 0))
    return None


def _unstacked(value: ir.Value, batch: int | str | None, width: int) -> ir.Value:
    """A part of the vectors [B, 1, D] as [B, D], where it is that with one axis more."""
    node = producer(value, "Unsqueeze", "Reshape")
    inner = None if node is None else needed(node, 0)
    return inner if inner is not None and dims(inner) == (batch, width) else value


def _parts(vectors: ir.Value) -> tuple[ir.Value, ...]:
    """What stands side by side in [B, F, D]: the inputs of the Concat that makes it, or itself."""
    shape = dims(vectors) or ()
    batch, width = shape[0], shape[-1]
    assert isinstance(width, int)
    node = producer(vectors, "Concat")
    if node is not None and attributes(node)["axis"] % 3 == 1:
        return tuple(_unstacked(value, batch, width) for value in node.inputs if value is not None)
    viewed = producer(vectors, "Reshape")
    flat = None if viewed is None else producer(needed(viewed, 0), "Concat")
    if flat is not None and attributes(flat)["axis"] % max(1, len(dims(flat.outputs[0]) or ())) == 1:
        inputs = tuple(value for value in flat.inputs if value is not None)
        if all(dims(value) == (batch, width) for value in inputs):
            return inputs
    return (vectors,)


def _match(node: ir.Node) -> _Pairs | None:
    vectors = _vectors(node)
    shape = dims(vectors)
    if vectors is None or shape is None or not all(isinstance(size, int) for size in shape[1:]):
        return None
    parts = _parts(vectors)
    # The first vector may be read where it is made, in front of the others.
    first = parts[0] if len(dims(parts[0]) or ()) == 2 else None
    stop = frozenset({vectors} if first is None else {vectors, first})
    found = cone(node.outputs[0], stop)
    equal = found is not None and found.sources <= stop and _computes(found, vectors, first)
    return _Pairs(node, vectors, parts, equal)


def _computes(found: Cone, vectors: ir.Value, first: ir.Value | None) -> bool:
    """Whether the part gives the first vector and the triangle, for small integers, whose sums are exact."""
    rng = np.random.default_rng(0)
    batch, *fixed = dims(vectors) or ()
    sizes = [size for size in fixed if isinstance(size, int)]
    last: dict[str, Array] = {}

    def feeds(probe: Probe) -> list[dict[ir.Value, Array]]:
        size = batch if isinstance(batch, int) else probe.sizes[str(batch)]
        last["x"] = rng.integers(-9, 10, (size, *sizes)).astype(np.float32)
        return [{vectors: last["x"], **({} if first is None else {first: last["x"][:, 0]})}]

    try:
        return all(
            np.array_equal(interaction(last["x"], {}), actual)
            for _, _, actual in evaluations(found, lambda probe: iter(feeds(probe)))
        )
    except (ModelError, KeyError):
        return False


def _check(found: _Pairs) -> str | None:
    if not found.equal:
        return (
            f"it holds products of {found.vectors.name!r} with itself, but not the first vector and then the "
            "strict lower triangle of them"
        )
    if found.vectors.dtype != ir.DataType.FLOAT:
        return "its vectors are not float32"
    return None


def _replace(found: _Pairs) -> Replacement:
    made = make("Interaction", list(found.parts), {}, found.node.name or "interaction")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


def _products(found: _Pairs) -> list[ir.Node]:
    return [node for node in consumers(found.vectors) if is_onnx(node, "MatMul")]


INTERACTION = Rule(
    "interaction",
    frozenset({"Concat"}),
    _match,
    _check,
    _replace,
    parts=_products,
    # The Concat itself may become a step of its own, which leaves the products unexplained.
    lasting=True,
)
