"""Embeddings of positions, recognized by what they compute: a table's first rows, those behind a past, or
those that count the tokens which are no padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, Dim, ModelError, constant, dims, needed
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


_MOST_NUMBERS = 8
"""Elements of a constant that ids may be compared with one by one; a longer one may be looked up by them."""


def counted(value: ir.Value) -> tuple[Array, int] | None:
    """A table and an id where the value is the table's rows by how many other ids stand before each."""
    found = cone(value)
    table = _table(found) if found is not None and len(found.sources) == 1 else None
    if found is None or table is None:
        return None
    (ids,) = found.sources
    numbers = _numbers(found, table)
    if ids.dtype != ir.DataType.INT64 or len(dims(ids) or ()) != 2 or numbers is None:
        return None
    named = (number for number in numbers if number < len(table) - 1)
    return next(((table, padding) for padding in named if _counts(found, ids, table, padding, numbers)), None)


def _numbers(found: Cone, table: Array) -> list[int] | None:
    """The whole numbers from 0 on at, above and below those of a cone; None where it holds another table."""
    read = {v for node in found.nodes for v in node.inputs if v is not None}
    arrays = [array for v in read if (array := constant(v)) is not None]
    held = [array for array in arrays if array.shape != table.shape]
    if any(array.size > _MOST_NUMBERS for array in held):
        return None
    finite = {float(x) for array in held for x in array.reshape(-1) if np.isfinite(float(x))}
    return sorted({int(end(x)) for x in finite for end in (np.floor, np.ceil) if end(x) >= 0})


def _contents(padding: int, numbers: list[int], shape: tuple[int, ...]) -> Iterator[Array]:
    """Ids around the numbers, with padding nowhere, at the ends, in between, and alone."""
    rng = np.random.default_rng(0)
    around = sorted({max(0, number + step) for number in numbers for step in (-1, 0, 1, 2)})
    others = [number for number in around if number != padding]
    yield np.full(shape, padding)
    yield from (np.full(shape, number) for number in others)
    for share in (0.2, 0.7):
        ids = rng.choice(around, shape)
        ids[rng.random(shape) < share] = padding
        yield ids
    ids = rng.choice(others, shape)
    ids[..., shape[-1] // 2 :] = padding
    yield ids


def _counts(found: Cone, ids: ir.Value, table: Array, padding: int, numbers: list[int]) -> bool:
    def feeds(probe: Probe) -> Iterator[dict[ir.Value, Array]]:
        return ({ids: content} for content in _contents(padding, numbers, sized(ids, probe.sizes)))

    try:
        for _, contents, y in evaluations(found, feeds):
            rows = positions_of_tokens(contents[ids], padding)
            if rows.max() >= len(table) or not np.array_equal(table[rows], y):
                return False
    except (ModelError, KeyError):
        return False
    return True


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
