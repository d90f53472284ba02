"""Sizes that are sums of others: a past and what comes to it.

Shape inference gives such a dimension a name of its own, or the exporter does; what it is made of stands in
the graph, at the Concat that puts the two together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import ONNX_DOMAINS, attributes, dims

Terms = tuple[int | str, ...]
"""Numbers and names of free dimensions whose sum is a size."""
_MOST_NODES = 8
_KEPT = frozenset(("Identity", "Cast"))


def terms_of(value: ir.Value, axis: int, free: Collection[str], depth: int = _MOST_NODES) -> Terms | None:
    """What a dimension of a value is the sum of, in names that are among `free`; None where not known."""
    shape = dims(value)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    dim = shape[axis]
    if isinstance(dim, int) or dim in free:
        return (dim,)  # type: ignore[return-value]
    node = value.producer()
    if node is None or depth == 0:
        return None
    parts = _parts(node, value, axis, len(shape))
    made = [terms_of(part, at, free, depth - 1) for part, at in parts]
    if not made or any(terms is None for terms in made):
        return None
    return tuple(term for terms in made for term in terms or ())


def _parts(node: ir.Node, value: ir.Value, axis: int, rank: int) -> list[tuple[ir.Value, int]]:
    """The values, each with an axis, whose sizes make up that of a node's result."""
    given = [operand for operand in node.inputs if operand is not None]
    if node.domain == DOMAIN:
        return _of_attention(node, value, axis) if node.op_type == "Attention" else []
    if node.domain not in ONNX_DOMAINS:
        return []
    if node.op_type == "Concat":
        joined = attributes(node).get("axis", 0) % rank
        return [(operand, axis) for operand in (given if axis == joined else given[:1])]
    if node.op_type == "Transpose":
        return [(given[0], attributes(node).get("perm", range(rank)[::-1])[axis])]
    return [(given[0], axis)] if node.op_type in _KEPT else []


def _of_attention(node: ir.Node, value: ir.Value, axis: int) -> list[tuple[ir.Value, int]]:
    """The keys of an Attention: those of its past and the new ones."""
    if value not in node.outputs[1:] or axis != 2:
        return []
    inputs = [*node.inputs, *[None] * 7]
    past, new = inputs[5], inputs[1] if inputs[1] is not None else inputs[0]
    return [(part, at) for part, at in ((past, 2), (new, 1)) if part is not None]


def size_of(value: ir.Value, axis: int, sizes: Mapping[str, int]) -> int | None:
    """A dimension of a value in numbers, for these sizes of the free dimensions; None where not known."""
    terms = terms_of(value, axis, sizes)
    return None if terms is None else sum(sizes[term] if isinstance(term, str) else term for term in terms)
