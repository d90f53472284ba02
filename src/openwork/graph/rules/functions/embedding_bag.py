"""Rows of a table in bags of one length, looked up and reduced, into EmbeddingBag."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import attributes, constant, dims, make, needed, operand, producer
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.stored_rows import Columns, Table, as_integers, as_matrix, columns, table

INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
MODES = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}


@dataclass(frozen=True)
class Bags:
    """Rows of a table, reduced by bags. ids: [B, P], or with offsets [T]. node: what the operator stands for,
    and `made` its value."""

    node: ir.Node
    made: ir.Value
    table: Table
    ids: ir.Value
    mode: str
    weights: ir.Value | None = None
    offsets: ir.Value | None = None
    include_last: bool = False


def bag_nodes(found: Bags) -> list[ir.Node]:
    """The nodes that stand for bags, the EmbeddingBag last."""
    values: dict[str, object] = {"mode": found.mode}
    part = columns(found.ids) if found.offsets is None and found.weights is None else None
    source = found.ids if part is None else part.value
    ids, nodes = as_integers(source, found.node)
    offsets = None
    if found.offsets is not None:
        offsets, more = as_integers(found.offsets, found.node)
        nodes += more
        values |= {"include_last": 1} if found.include_last else {}
    elif part is not None:
        ids, more = as_matrix(ids, found.node)
        nodes += more
        values |= {"begin": part.begin, "end": part.end}
    slots = {"ids": ids, "offsets": offsets, "weights": found.weights, **found.table.slots(home(found.node))}
    return [*nodes, make("EmbeddingBag", slots, values, found.table.name)]


def replaced(found: Bags) -> Replacement:
    """The EmbeddingBag in the place of what it stands for."""
    nodes = bag_nodes(found)
    return Replacement(nodes, [(found.made, nodes[-1].outputs[0])])


def _over_bags(node: ir.Node) -> bool:
    """Whether a reduction is over the second of three axes, and drops it."""
    found, listed = attributes(node), constant(operand(node, 1))
    axes = found.get("axes") if listed is None else listed.reshape(-1).tolist()
    return axes is not None and [axis % 3 for axis in axes] == [1] and not found.get("keepdims", 1)


def _weighted(value: ir.Value) -> tuple[ir.Node | None, ir.Value | None]:
    """The Gather behind a product with weights [B, P, 1], and these as [B, P]; or the Gather alone."""
    node = producer(value, "Mul")
    if node is None:
        return producer(value, "Gather"), None
    for a, b in ((0, 1), (1, 0)):
        gather, spread = producer(operand(node, a), "Gather"), producer(operand(node, b), "Unsqueeze")
        weights = None if spread is None else needed(spread, 0)
        if gather is not None and weights is not None and (dims(operand(node, b)) or (None,))[-1] == 1:
            return gather, weights
    return None, None


def _match(node: ir.Node) -> Bags | None:
    gather, weights = _weighted(needed(node, 0)) if _over_bags(node) else (None, None)
    if gather is None or attributes(gather).get("axis", 0) != 0:
        return None
    found, ids = table(operand(gather, 0)), needed(gather, 1)
    if found is None or len(dims(ids) or ()) != 2:
        return None
    return Bags(node, node.outputs[0], found, ids, MODES[node.op_type], weights)


def fed(value: ir.Value) -> bool:
    """Whether ids are what the graph is fed, cut and viewed at most: others may count from a table's end,
    which an engine refuses."""
    part: Columns | None = columns(value)
    return value.is_graph_input() or (part is not None and part.value.is_graph_input())


def refused(found: Bags) -> str | None:
    """Why bags have no native step; None where they have one."""
    if found.ids.dtype not in INTEGERS:
        return f"its ids {found.ids.name!r} are neither INT64 nor INT32"
    if found.weights is not None and found.mode != "sum":
        return f"it weighs the rows of a {found.mode}, and EmbeddingBag those of sums"
    if found.weights is not None and dims(found.weights) != dims(found.ids):
        return "its weights do not have the shape of its ids"
    if found.offsets is None and columns(found.ids) is None:
        return f"the number of ids in a bag of {found.ids.name!r} is free"
    if found.offsets is None and not fed(found.ids):
        return f"its ids {found.ids.name!r} are computed"
    return None


def _match_row(node: ir.Node) -> Bags | None:
    """The row of one id for each batch element: a bag of one, where the ids are a column of what is fed."""
    found, ids = table(operand(node, 0)), needed(node, 1)
    if found is None or attributes(node).get("axis", 0) % 2 != 0 or len(dims(ids) or ()) != 1:
        return None
    part = columns(ids)
    if part is None or part.value is ids or not part.value.is_graph_input():
        return None
    return Bags(node, node.outputs[0], found, ids, "sum")


ROW_BY_COLUMN = Rule("row by a column of ids", frozenset({"Gather"}), _match_row, refused, replaced)
EMBEDDING_BAG = Rule("embedding bag", frozenset(MODES), _match, refused, replaced)
