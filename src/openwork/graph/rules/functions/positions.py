"""Embeddings of positions, recognized by what they compute: a table's first rows, those behind a past, or
those that count the tokens which are no padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, Dim, ModelError, constant, dims, needed, scalar
from openwork.graph.numerics.tables import positions_of_tokens
from openwork.graph.probe import Cone, Probe, cone, evaluations, sized


def _table(found: Cone) -> Array | None:
    """The one float matrix that a cone reads."""
    read = {v for node in found.nodes for v in node.inputs if v is not None} | {found.value}
    tables = [
        array
        for v in read
        if (array := constant(v)) is not None and array.ndim == 2 and array.dtype == np.float32
    ]
    return tables[0] if len(tables) == 1 else None


def _pasts(found: Cone) -> list[tuple[ir.Value, str]]:
    """Inputs [B, G, P, D] whose shapes a cone reads, each with P's name."""
    read = dict.fromkeys(needed(node, 0) for node in found.shapes)
    pasts = [(value, dims(value) or ()) for value in read if value.is_graph_input()]
    return [(v, d[2]) for v, d in pasts if len(d) == 4 and isinstance(d[2], str)]


def behind(value: ir.Value, length: Dim) -> tuple[Array, ir.Value] | None:
    """A table and a past where the value is the table's `length` rows from the past's length on."""
    found = cone(value)
    table = _table(found) if found is not None and not found.sources else None
    if found is None or table is None:
        return None
    for past, name in _pasts(found):
        try:
            rows = [
                (probe.sizes[name], _size(length, probe), np.asarray(y), probe.large)
                for probe, _, y in evaluations(found)
            ]
        except (ModelError, KeyError):
            continue
        # Rows of another number than the words' cannot be added to them: the model does not run so long.
        kept = [(first, n, y) for first, n, y, large in rows if not large or y.shape[-2:-1] == (n,)]
        if all(y.ndim > 1 and _spreads(table[first : first + n], y) for first, n, y in kept):
            return table, past
    return None


_MOST_IDS = 1 << 20


def _contents(padding: int, shape: tuple[int, ...]) -> Iterator[Array]:
    """Ids with padding nowhere, at the ends, in between, and alone."""
    rng = np.random.default_rng(0)
    yield np.full(shape, padding)
    yield np.full(shape, padding + 1)
    for share in (0.2, 0.7):
        ids = rng.integers(0, padding + 4, shape)
        ids[rng.random(shape) < share] = padding
        yield ids
    ids = rng.integers(padding + 1, padding + 4, shape)
    ids[..., shape[-1] // 2 :] = padding
    yield ids


def counted(value: ir.Value) -> tuple[Array, int] | None:
    """A table and an id where the value is the table's rows by how many other ids stand before each."""
    found = _of_ids(value)
    if found is None:
        return None
    cone_, ids, table = found

    def counts(padding: int) -> bool:
        made = _by_tokens(cone_, ids, padding)
        rows = [(positions_of_tokens(content, padding), y) for content, y in made]
        return bool(rows) and all(
            places.max() < len(table) and np.array_equal(table[places], y) for places, y in rows
        )

    return next(((table, padding) for padding in _numbers(cone_, len(table) - 1) if counts(padding)), None)


def repeated(value: ir.Value) -> Array | None:
    """The row of a table that the value repeats whatever the ids are that it is computed from."""
    found = _of_ids(value)
    if found is None:
        return None
    cone_, ids, _ = found
    made = [y for padding in _numbers(cone_, _MOST_IDS) or [1] for _, y in _by_tokens(cone_, ids, padding)]
    if not made or made[0].size == 0:
        return None
    row = made[0].reshape(-1, made[0].shape[-1])[:1]
    return row[0] if all(_spreads(row, y) for y in made) else None


def _of_ids(value: ir.Value) -> tuple[Cone, ir.Value, Array] | None:
    """A cone of one input, INT64 [batch, length], and of one table."""
    found = cone(value)
    table = _table(found) if found is not None and len(found.sources) == 1 else None
    if found is None or table is None:
        return None
    (ids,) = found.sources
    fits = ids.dtype == ir.DataType.INT64 and len(dims(ids) or ()) == 2
    return (found, ids, table) if fits else None


def _numbers(found: Cone, end: int) -> list[int]:
    """The whole numbers that stand in a cone, from 0 to before `end`."""
    read = {v for node in found.nodes for v in node.inputs if v is not None}
    numbers = {scalar(v) for v in read}
    return sorted({int(n) for n in numbers if n is not None and n == int(n) and 0 <= n < end})


def _by_tokens(found: Cone, ids: ir.Value, padding: int) -> list[tuple[Array, Array]]:
    """Ids, this one among them, and what the cone makes of them; nothing where it cannot be computed."""

    def feeds(probe: Probe) -> Iterator[dict[ir.Value, Array]]:
        return ({ids: content} for content in _contents(padding, sized(ids, probe.sizes)))

    try:
        return [(contents[ids], np.asarray(y)) for _, contents, y in evaluations(found, feeds)]
    except (ModelError, KeyError):
        return []


def _size(length: Dim, probe: Probe) -> int:
    return length if isinstance(length, int) else probe.sizes[str(length)]


def position_or_row(value: ir.Value, length: Dim) -> tuple[Array | None, Array | None]:
    """(table, None) where the value is a table's first `length` rows, (None, row) where one row repeats."""
    array = constant(value)
    if array is not None:
        return (None, array.reshape(-1)) if array.size == array.shape[-1] else (None, None)
    found = cone(value)
    table = _table(found) if found is not None and not found.sources else None
    if found is None or table is None:
        return None, None
    try:
        found_rows = [
            (_size(length, probe), np.asarray(y), probe.large) for probe, _, y in evaluations(found)
        ]
    except (ModelError, KeyError):
        return None, None
    if any(y.ndim < 2 for _, y, _ in found_rows):
        return None, None
    # Rows of another number than the words' cannot be added to them: the model does not run so long.
    results = [(n, y) for n, y, large in found_rows if not large or y.shape[-2] in (1, n)]
    if all(len(table) >= n == y.shape[-2] and _spreads(table[:n], y) for n, y in results):
        return table, None
    row = results[0][1].reshape(-1, results[0][1].shape[-1])[:1]
    return (None, row[0]) if all(_spreads(row, y) for _, y in results) else (None, None)


def _spreads(rows: Array, y: Array) -> bool:
    """Whether y [.., n, channels] repeats the rows [n or 1, channels]."""
    if y.shape[-1] != rows.shape[1] or rows.shape[0] not in (1, y.shape[-2]):
        return False
    return bool(np.array_equal(y, np.broadcast_to(rows, y.shape)))
