"""The sum of word, type and position embeddings, in its spellings, into EmbeddingSum."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    Dim,
    ModelError,
    constant,
    describe,
    dims,
    make,
    needed,
    only_consumer,
    operand,
    producer,
)
from openwork.graph.probe import cone, evaluations
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.functions.positions import behind, counted, position_or_row


@dataclass
class _Terms:
    """The leaves of a sum of embeddings, by what they are. behind: the past that the positions follow.
    padding: the id that the positions do not count."""

    gathers: list[ir.Node] = field(default_factory=list)
    position: Array | None = None
    behind: ir.Value | None = None
    padding: int | None = None
    row: Array | None = None
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Sum:
    root: ir.Node
    terms: _Terms


def _is_token_gather(value: ir.Value | None) -> ir.Node | None:
    """The Gather of rows of a constant table by an input of the graph."""
    node = producer(value, "Gather")
    if node is None or node.attributes.get_int("axis", 0) != 0:
        return None
    table, ids = constant(needed(node, 0)), needed(node, 1)
    return node if table is not None and table.ndim == 2 and ids.is_graph_input() else None


def _leaves(value: ir.Value) -> list[ir.Value]:
    """The summands of a tree of Adds whose inner sums are read nowhere else."""
    node = producer(value, "Add")
    if node is None:
        return [value]
    return [
        leaf
        for part in node.inputs
        if part is not None
        for leaf in (_leaves(part) if _inner(part) else [part])
    ]


def _inner(value: ir.Value) -> bool:
    return only_consumer(value) is not None


def _why_other(value: ir.Value) -> str:
    """Why a summand is neither rows of a table by an input nor the positions' rows."""
    said = f"its summand {value.name!r} is neither rows of a table by an input nor the positions' rows"
    node = producer(value, "Gather")
    maker = needed(node, 1).producer() if node is not None else None
    if maker is not None:
        said += f": the indices of its rows are computed by {describe(maker)}"
    found = cone(value)
    if found is None:
        return said
    if found.sources:
        return f"{said} from {', '.join(sorted(repr(source.name) for source in found.sources))}"
    try:
        list(evaluations(found))
    except ModelError as error:
        said += f"; {error}"
    return said


def _sort(value: ir.Value, terms: _Terms, length: Dim) -> None:
    gather = _is_token_gather(value)
    if gather is not None:
        terms.gathers.append(gather)
        return
    table, row = position_or_row(value, length)
    if table is not None and terms.position is None:
        terms.position = table
    elif row is not None:
        terms.row = row if terms.row is None else terms.row + row
    elif terms.position is None and (found := behind(value, length)) is not None:
        terms.position, terms.behind = found
    elif terms.position is None and (by_count := counted(value)) is not None:
        terms.position, terms.padding = by_count
    else:
        terms.reasons.append(_why_other(value))


def _root(node: ir.Node) -> ir.Node | None:
    """The last Add of the tree that begins at a Gather."""
    current, root = node.outputs[0], None
    while (reader := only_consumer(current)) is not None and reader.op_type == "Add" and reader.domain == "":
        root, current = reader, reader.outputs[0]
    return root


def _match(node: ir.Node) -> _Sum | None:
    if _is_token_gather(node.outputs[0]) is None:
        return None
    root = _root(node)
    if root is None:
        return None
    terms, length = _Terms(), (dims(needed(node, 1)) or (None,))[-1]
    for leaf in _leaves(root.outputs[0]):
        _sort(leaf, terms, length)
    terms.gathers.sort(key=lambda gather: -(constant(gather.inputs[0]).shape[0]))  # type: ignore[union-attr]
    return _Sum(root, terms) if terms.gathers and terms.gathers[0] is node else None


def _check(found: _Sum) -> str | None:
    terms = found.terms
    if terms.reasons:
        return "; ".join(terms.reasons)
    if len(terms.gathers) > 2:
        return f"it sums {len(terms.gathers)} tables by inputs; EmbeddingSum takes words and types"
    if terms.position is None:
        return "no summand is a table's first rows, one for each position"
    for gather in terms.gathers:
        ids = needed(gather, 1)
        if ids.dtype != ir.DataType.INT64 or len(dims(ids) or ()) != 2:
            return f"its input {ids.name!r} is not INT64 [batch, length]"
        table = constant(needed(gather, 0))
        if table is None or table.dtype != np.float32 or table.shape[1] != terms.position.shape[1]:
            return "its tables are not float32 with the same number of channels"
    return None


def _replace(found: _Sum) -> Replacement:
    terms, graph = found.terms, home(found.root)
    assert terms.position is not None
    position = terms.position if terms.row is None else terms.position + terms.row
    name = found.root.name or "embeddings"
    word = terms.gathers[0]
    kind = terms.gathers[1] if len(terms.gathers) > 1 else None
    inputs = {
        "ids": needed(word, 1),
        "type_ids": None if kind is None else needed(kind, 1),
        "behind": terms.behind,
        "word": needed(word, 0),
        "position": add_initializer(graph, f"{name}.position", position.astype(np.float32)),
        "type": None if kind is None else operand(kind, 0),
    }
    values = {} if terms.padding is None else {"padding_id": terms.padding}
    made = make("EmbeddingSum", inputs, values, name)
    return Replacement([made], [(found.root.outputs[0], made.outputs[0])])


# A lookup may become a step of its own, which leaves the sum unexplained.
EMBEDDING_SUM = Rule("embedding sum", frozenset({"Gather"}), _match, _check, _replace, lasting=True)
