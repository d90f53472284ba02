"""Loops over bags of rows of a table, as the exporters of torch write nn.EmbeddingBag, into EmbeddingBag.

One exporter slices the ids of a bag in each turn, another looks all rows up first and puts the bags into a
sequence; with branches for empty bags, or for the last one. What such a loop computes is found by computing
it: with a small table, few and many bags, and the ids, offsets and weights that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from openwork.engine.operators.table_rows import BAG_MODES
from openwork.graph.model import (
    Array,
    ModelError,
    attributes,
    constant,
    dims,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.nested import Nest, nest, operands
from openwork.graph.numerics.tables import embedding_bag
from openwork.graph.part import graphs_of
from openwork.graph.rewrite import Rule
from openwork.graph.rules.functions.embedding_bag import INTEGERS, Bags, refused, replaced
from openwork.graph.stored_rows import Table, table

_FEW_ROWS = 40
_BAGS = (2, 1, 5, 67)
_LENGTHS = (3, 1, 4, 2)
_WALKED = ("Reshape", "Slice", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Cast")


@dataclass(frozen=True)
class _Loop:
    """A loop that looks rows of a table up, and what it makes of them where that is bags."""

    anchor: ir.Node
    made: ir.Value
    table: Table
    bags: Bags | None


def _root(node: ir.Node) -> ir.Value | None:
    """The float tensor that a loop ends in."""
    if node.op_type == "Loop":
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        tensor = len(used) == 1 and isinstance(used[0].type, ir.TensorType)
        return used[0] if tensor and used[0].dtype == ir.DataType.FLOAT else None
    value = node.outputs[0]
    reader = only_consumer(value)
    if (
        reader is not None
        and producer(reader.outputs[0], "Cast")
        and attributes(reader).get("to") == int(ir.DataType.FLOAT)
    ):
        return reader.outputs[0]
    return value


def _all_nodes(nodes: Sequence[ir.Node]) -> Iterator[ir.Node]:
    """Nodes and those in their bodies."""
    for node in nodes:
        yield node
        for graph in graphs_of(node):
            yield from _all_nodes(list(graph))


def _lookup(found: Nest) -> tuple[ir.Node, Table] | None:
    """The one lookup of rows of a table, where nothing else reads this table there."""
    every = list(_all_nodes(found.nodes))
    gathers = [
        (node, rows)
        for node in every
        if node.op_type == "Gather"
        and attributes(node).get("axis", 0) == 0
        and (rows := table(needed(node, 0))) is not None
    ]
    if len(gathers) != 1:
        return None
    node, rows = gathers[0]
    # Its shape is that of the small table, where this is looked at.
    readers = [other for other in every if rows.value in other.inputs and other.op_type != "Shape"]
    return (node, rows) if readers == [node] else None


def _ids(gather: ir.Node) -> list[ir.Value]:
    """What the ids of a lookup may be outside of the loop: the value itself and what it is a view or part of,
    two axes before one, and what the graph has first in front."""
    found, value = list[ir.Value](), needed(gather, 1)
    while True:
        inside = value.producer() is not None and value.producer().graph is not None  # type: ignore[union-attr]
        if (
            value.dtype in INTEGERS
            and len(dims(value) or ()) in (1, 2)
            and (inside or value.is_graph_input())
        ):
            found.append(value)
        node = producer(value, *_WALKED)
        if node is None:
            found.reverse()
            return sorted(found, key=lambda each: -len(dims(each) or ()))
        value = needed(node, 0)


def _read(found: Nest, dtypes: tuple[ir.DataType, ...], rank: int) -> list[ir.Value]:
    """The values of these types and this rank that the nodes read and do not store, fed ones in front."""
    read = dict.fromkeys(value for node in found.nodes for value in operands(node))
    return [
        value
        for value in sorted(read, key=lambda each: each not in found.open)
        if value.dtype in dtypes and len(dims(value) or ()) == rank and constant(value) is None
    ]


def _closed(value: ir.Value, known: Sequence[ir.Value | None]) -> Nest | None:
    """The nodes that make a value of known ones alone, all of which they read."""
    given = [each for each in known if each is not None]
    found = nest(value, frozenset(given))
    if found is None or found.open:
        return None
    read = {each for node in found.nodes for each in operands(node)}
    return found if read.issuperset(given) else None


def _only_moved(found: Nest, ids: ir.Value, gather: ir.Node) -> bool:
    """Whether ids are moved and then looked up, and nothing is decided by one of them: what is left out where
    an id has one value would not be seen with few rows."""
    moved = {ids}
    # A body may stand before or behind what it reads, but its nodes stand in their order.
    for node in _all_nodes(found.nodes):
        if node is gather or moved.isdisjoint(node.inputs) or node.op_type in ("Shape", "Size"):
            continue
        if node.op_type not in _WALKED or node.inputs[0] not in moved:
            return False
        moved.update(node.outputs)
    return True


def _readings(loop: _Loop, whole: Nest, gather: ir.Node) -> Iterator[tuple[Bags, Nest]]:
    """Every way to take some of what the loop reads for ids, offsets and weights."""
    for ids in _ids(gather):
        rank = len(dims(ids) or ())
        others: list[ir.Value | None] = [None]
        if rank == 1:
            others = [value for value in _read(whole, INTEGERS, 1) if value is not ids]
        for offsets in others:
            for weights in (None, *_read(whole, (ir.DataType.FLOAT,), rank)):
                found = _closed(loop.made, (ids, offsets, weights, loop.table.value))
                if found is not None and _only_moved(found, ids, gather):
                    yield Bags(loop.anchor, loop.made, loop.table, ids, "sum", weights, offsets), found


@dataclass(frozen=True)
class _Trial:
    ids: Array
    offsets: Array | None
    weights: Array | None
    rows: Array


def _trials(bags: Bags) -> Iterator[_Trial]:
    """Small tables of small integers, of which every sum is exact, and ids in bags of which none is empty."""
    rng = np.random.default_rng(0)
    count, width = min(bags.table.shape[0], _FEW_ROWS), bags.table.shape[1]
    fixed = (dims(bags.ids) or (None,))[-1]
    for number, most in zip(_BAGS, _LENGTHS, strict=True):
        lengths = rng.integers(1, most + 1, number)
        shape = (int(lengths.sum()),) if bags.offsets is not None else (number, int(fixed or 0))
        offsets = None if bags.offsets is None else np.append(0, np.cumsum(lengths)).astype(np.int64)
        weights = None if bags.weights is None else rng.integers(-4, 5, shape).astype(np.float32) / 4
        rows = rng.integers(-9, 10, (count, width)).astype(np.float32)
        yield _Trial(rng.integers(0, count, shape), offsets, weights, rows)


def _numbers(value: ir.Value, array: Array) -> Array:
    return array.astype(ir.DataType(value.dtype or ir.DataType.INT64).numpy())


def _computed(bags: Bags, found: Nest, trial: _Trial) -> Array:
    contents: dict[ir.Value, Array] = {bags.ids: _numbers(bags.ids, trial.ids), bags.table.value: trial.rows}
    if bags.offsets is not None and trial.offsets is not None:
        given = trial.offsets if bags.include_last else trial.offsets[:-1]
        contents[bags.offsets] = _numbers(bags.offsets, given)
    if bags.weights is not None and trial.weights is not None:
        contents[bags.weights] = trial.weights
    return found.evaluate(_sizes(contents), contents)


def _sizes(contents: Mapping[ir.Value, Array]) -> dict[str, int]:
    """The free dimensions that contents give a size."""
    return {
        dim: size
        for value, array in contents.items()
        for dim, size in zip(dims(value) or (), array.shape, strict=False)
        if isinstance(dim, str)
    }


def _expected(bags: Bags, trial: _Trial) -> Array:
    values = {"mode": bags.mode, **({} if trial.offsets is None else {"include_last": 1})}
    return embedding_bag(trial.ids, trial.offsets, trial.weights, trial.rows, None, None, values)


def _mode(bags: Bags, found: Nest) -> Bags | None:
    """The bags with the mode that the loop has in all trials; None where it has none."""
    modes = BAG_MODES if bags.weights is None else BAG_MODES[:1]
    left = [replace(bags, mode=mode) for mode in modes]
    try:
        for trial in _trials(bags):
            actual = _computed(bags, found, trial)
            left = [each for each in left if _equal(actual, _expected(each, trial))]
            if not left:
                return None
    except (ModelError, KeyError):
        return None
    return left[0]


def _equal(actual: Array, expected: Array) -> bool:
    # Of a mean the quotient of an exact sum is rounded once.
    return actual.shape == expected.shape and bool(np.allclose(actual, expected, rtol=2**-22, atol=0))


def _bags(loop: _Loop, whole: Nest, gather: ir.Node) -> Bags | None:
    for bags, found in _readings(loop, whole, gather):
        for include_last in (False, True) if bags.offsets is not None else (False,):
            read = _mode(replace(bags, include_last=include_last), found)
            if read is not None:
                return read
    return None


def _match(node: ir.Node) -> _Loop | None:
    made = _root(node)
    whole = None if made is None else nest(made, frozenset())
    lookup = None if whole is None else _lookup(whole)
    if made is None or whole is None or lookup is None:
        return None
    loop = _Loop(node, made, lookup[1], None)
    return replace(loop, bags=_bags(loop, whole, lookup[0]))


def _check(found: _Loop) -> str | None:
    if found.bags is None:
        return (
            f"it is a loop over rows of the table {found.table.name!r}, "
            "but no sum, mean or maximum of bags of them"
        )
    return refused(found.bags)


BAG_LOOP = Rule(
    "embedding bag in a loop",
    frozenset({"Loop", "ConcatFromSequence"}),
    _match,
    _check,
    lambda found: replaced(found.bags),
)
