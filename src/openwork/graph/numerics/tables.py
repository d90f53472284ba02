"""Rows of stored tables: looked up, put into bags, and multiplied with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.graph.model import ModelError
from openwork.graph.numerics.binary32 import Float, dot16, fma, maximum, quiet
from openwork.graph.numerics.epilogue import store

Array = NDArray[Any]
Attributes = Mapping[str, Any]


def checked_rows(operator: str, table: Array, ids: Array, name: str) -> Array:
    """The ids, which all number rows of the table; raises ModelError where one does not."""
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise ModelError(
            f"{operator}: {name} must lie in [0, {len(table) - 1}], the rows of its table, but they reach "
            f"from {ids.min()} to {ids.max()}."
        )
    return ids


def _floats(table: Array, scale: Float | None, zero_point: Array | None, ids: Array) -> Float:
    """The rows of these ids; integers dequantized, (q - zero_point) * scale, each row by its own."""
    rows = table[ids]
    if scale is None or zero_point is None:
        return rows
    centred = rows.astype(np.float32) - zero_point[ids].astype(np.float32)[..., None]
    return np.asarray(centred * scale[ids][..., None], np.float32)


def gather(ids: Array, table: Array, scale: Float | None, zero_point: Array | None, a: Attributes) -> Float:
    """The rows of a table: [.., H] for ids [..]."""
    return _floats(table, scale, zero_point, checked_rows("Gather", table, ids, "ids"))


def _bags(ids: Array, offsets: Array | None, a: Attributes) -> Iterator[tuple[Any, ...]]:
    """Where each bag's ids stand among all of them, as an index."""
    if offsets is None:
        columns = slice(a.get("begin", 0), a.get("end", ids.shape[1]))
        yield from ((row, columns) for row in range(len(ids)))
        return
    ends = offsets if a.get("include_last") else np.append(offsets, len(ids))
    if (np.diff(ends) < 0).any() or ends[0] < 0 or ends[-1] > len(ids):
        raise ModelError(
            f"EmbeddingBag: offsets must never fall, from 0 to the number of ids, {len(ids)}, but they are "
            f"{offsets.tolist()}."
        )
    yield from ((slice(begin, end),) for begin, end in pairwise(ends))


def _bag(rows: Float, weights: Float | None, mode: str) -> Float:
    """The rows of one bag [n, H] as one, in their order; 0 for none."""
    if not len(rows):
        return np.zeros(rows.shape[1:], np.float32)
    total = rows[0] if weights is None else rows[0] * weights[0]
    for i in range(1, len(rows)):
        if mode == "max":
            total = maximum(total, rows[i])
        else:
            total = total + rows[i] if weights is None else fma(rows[i], weights[i], total)
    return np.asarray(total / np.float32(len(rows)) if mode == "mean" else total, np.float32)


def embedding_bag(
    ids: Array,
    offsets: Array | None,
    weights: Float | None,
    table: Array,
    scale: Float | None,
    zero_point: Array | None,
    a: Attributes,
) -> Float:
    """The sum, mean or maximum of the rows of each bag: [B, H]; of a sum each row times its weight.

    Bags are the columns `begin` to `end` of ids [B, W], or begin at offsets [B] of ids [T] and reach to the
    next one, with `include_last` to the last offset.
    """
    made = []
    with quiet():
        for index in _bags(ids, offsets, a):
            rows = _floats(table, scale, zero_point, checked_rows("EmbeddingBag", table, ids[index], "ids"))
            made.append(_bag(rows, None if weights is None else weights[index], a["mode"]))
    return np.stack(made)


def interaction(*inputs: Any) -> Array:
    """Vectors [B, D] or [B, F, D], side by side: the first of them, then the products of each with those
    before it, row after row of the strict lower triangle: [B, D + F (F - 1) / 2]."""
    arrays, a = inputs[:-1], inputs[-1]
    x = np.concatenate([each if each.ndim == 3 else each[:, None] for each in arrays], 1)
    row, column = np.tril_indices(x.shape[1], -1)
    with quiet():
        pairs = (len(x), len(row))
        products = dot16(x[:, row], x[:, column]) if len(row) else np.zeros(pairs, np.float32)
    return store(np.concatenate([x[:, 0], products], 1), a)


def positions_of_tokens(ids: Array, padding: int) -> Array:
    """How many other ids than `padding` stand up to each, counted from it; `padding` where it stands."""
    kept = ids != padding
    return np.asarray(np.cumsum(kept, axis=-1) * kept + padding)
