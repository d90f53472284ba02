"""The canonical compressed form of N:M weights (docs/program.md): kept values and bit-packed positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.patterns.bitmap import WEIGHT_TYPES, Bytes, Weights

LARGEST_GROUP = 256
"""A position in a group fits one byte. Weights of longer groups are stored as a bitmap, which is smaller from
there on: one bit for each weight, against eight for each that is kept."""

_WEIGHTS_AT_ONCE = 1 << 17
"""Weights that are made dense together: what they need meanwhile, at most 17 times as many bytes, stays in
the caches."""


@dataclass(frozen=True)
class Compressed:
    """An N:M weight matrix of `n` output and `k` input channels.

    values : s8, BF16 or f32 [n, ceil(k / group) * kept], the kept weights in order of their position.
    indices : u8 [n, ceil(values.shape[1] * ceil(log2 group) / 8)], the positions within each group.
    kept, group : N and M.
    k : input channels.
    """

    values: Weights
    indices: Bytes
    kept: int
    group: int
    k: int

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.values.nbytes + self.indices.nbytes


def shapes(n: int, k: int, kept: int, group: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of `values` and `indices` for a weight [n, k] that keeps `kept` of every `group`.

    Raises ValueError where the numbers name no pattern.
    """
    if not 1 <= kept < group <= LARGEST_GROUP:
        raise ValueError(
            f"A pattern keeps N of M with 1 <= N < M <= {LARGEST_GROUP}, but this is {kept}:{group}."
        )
    if n < 1 or k < 1:
        raise ValueError(f"A compressed weight has at least one row and one column, but this is [{n}, {k}].")
    columns = -(-k // group) * kept
    return (n, columns), (n, -(-columns * field_bits(group) // 8))


def field_bits(group: int) -> int:
    """Bits of one position: ceil(log2 group)."""
    return (group - 1).bit_length()


def compress(weight: Weights, kept: int, group: int) -> Compressed:
    """Store a weight that keeps at most `kept` of every `group` consecutive input channels.

    weight : s8 or f32 [n, k].
    raises ValueError where the weight has another type or shape or breaks the pattern.
    """
    if weight.ndim != 2 or weight.dtype not in WEIGHT_TYPES:
        raise ValueError(
            f"A weight is compressed from int8, uint16 (BF16) or float32 [n, k], but it is "
            f"{weight.dtype} {list(weight.shape)}."
        )
    n, k = weight.shape
    (_, columns), _ = shapes(n, k, kept, group)
    padded = np.zeros((n, -(-k // group) * group), weight.dtype)
    padded[:, :k] = weight
    groups = padded.reshape(n, -1, group)
    _refuse_overfull(groups, kept, group)
    # A stable sort puts the non-zero positions first, each part in increasing order: the first `kept` are
    # the non-zero ones filled up with the lowest free positions.
    chosen = np.sort(np.argsort(groups == 0, axis=2, kind="stable")[:, :, :kept], axis=2)
    values = np.take_along_axis(groups, chosen, axis=2).reshape(n, columns)
    places = chosen.astype(np.uint8).reshape(n, columns)
    return Compressed(values, _pack(places, field_bits(group)), kept, group, k)


def decompress(compressed: Compressed) -> Weights:
    """The dense weight s8 or f32 [n, k]; raises ValueError, naming what is wrong, unless the form is the
    canonical one."""
    _check_shapes(compressed)
    n, k, group = compressed.values.shape[0], compressed.k, compressed.group
    width = -(-k // group) * group
    padded = np.zeros((n, width), compressed.values.dtype)
    blocks = list(_blocks_of_rows(n, width))
    starts = _starts(blocks[0].stop, width, compressed.kept, group)
    for rows in blocks:
        chosen = _positions(compressed, rows)
        # Flat indices in increasing order: one pass through the block, without a mask or a sort.
        places = starts[: len(chosen)] + chosen
        padded[rows].reshape(-1)[places.reshape(-1)] = compressed.values[rows].reshape(-1)
    if padded[:, k:].any():
        raise ValueError(f"A compressed weight has a non-zero value beyond its {k} input channels.")
    return padded if padded.shape[1] == k else np.ascontiguousarray(padded[:, :k])


def _starts(rows: int, width: int, kept: int, group: int) -> NDArray[np.int64]:
    """Where the group of each kept value begins in a block of padded rows, counted through the block."""
    groups = np.repeat(np.arange(0, width, group, dtype=np.int64), kept)
    return np.arange(rows, dtype=np.int64)[:, None] * width + groups


def _blocks_of_rows(rows: int, columns: int) -> Iterator[slice]:
    together = min(rows, max(1, _WEIGHTS_AT_ONCE // columns))
    return (slice(first, first + together) for first in range(0, rows, together))


def check(compressed: Compressed) -> None:
    """Refuse, with a ValueError, whatever `compress` would not have written: each byte has one right
    value."""
    again = compress(decompress(compressed), compressed.kept, compressed.group)
    if not np.array_equal(again.indices, compressed.indices):
        row = int(np.flatnonzero((again.indices != compressed.indices).any(axis=1))[0])
        raise ValueError(
            f"Row {row} of a compressed weight fills a group up at other than its lowest free positions."
        )


def _check_shapes(compressed: Compressed) -> None:
    values, indices, kept, group = compressed.values, compressed.indices, compressed.kept, compressed.group
    typed = values.dtype in WEIGHT_TYPES and indices.dtype == np.uint8
    if values.ndim != 2 or indices.ndim != 2 or not typed:
        raise ValueError(
            "A compressed weight has int8, uint16 (BF16) or float32 values [n, kept] and uint8 indices "
            "[n, bytes]."
        )
    expected = shapes(values.shape[0], compressed.k, kept, group)
    if (values.shape, indices.shape) != expected:
        raise ValueError(
            f"A {kept}:{group} weight with {compressed.k} input channels has values {list(expected[0])} "
            f"and indices {list(expected[1])}, but they are {list(values.shape)} and {list(indices.shape)}."
        )


def _positions(compressed: Compressed, rows: slice) -> Bytes:
    """The positions u8 [rows, values] of the kept values within their groups.

    Raises ValueError unless every position lies inside its group, above the one before it.
    """
    kept, group = compressed.kept, compressed.group
    indices, count = compressed.indices[rows], compressed.values.shape[1]
    chosen = _unpack(indices, count, field_bits(group))
    if group & (group - 1) and (chosen >= group).any():
        raise ValueError(f"A {kept}:{group} weight has a position {int(chosen.max())} outside its group.")
    # Each against the next one, and those at a group's end, whose next one is another group's, left out.
    falling = chosen[:, 1:] <= chosen[:, :-1]
    falling[:, kept - 1 :: kept] = False
    if falling.any():
        row = rows.start + int(np.argwhere(falling)[0][0])
        raise ValueError(
            f"Row {row} of a {kept}:{group} weight has positions that do not increase within a group."
        )
    return chosen


def _refuse_overfull(groups: Weights, kept: int, group: int) -> None:
    counts = np.count_nonzero(groups, axis=2)
    if (counts > kept).any():
        row, block = (int(i) for i in np.argwhere(counts > kept)[0])
        raise ValueError(
            f"The weight breaks {kept}:{group}: row {row}, input channels {block * group} to "
            f"{block * group + group - 1}, has {counts[row, block]} non-zero weights."
        )


def _pack(positions: Bytes, bits: int) -> Bytes:
    fields = np.unpackbits(positions[:, :, None], axis=2, count=bits, bitorder="little")
    return np.packbits(fields.reshape(len(positions), -1), axis=1, bitorder="little")


def _fields_of_bytes(bits: int) -> NDArray[Any]:
    """For each byte its 8 / bits fields, as one number whose bytes they are."""
    fields = np.arange(256)[:, None] >> np.arange(0, 8, bits) & (1 << bits) - 1
    return fields.astype(np.uint8).view(f"u{8 // bits}").reshape(-1)


_FIELDS = {bits: _fields_of_bytes(bits) for bits in (1, 2, 4, 8)}


def _unpack(indices: Bytes, count: int, bits: int) -> Bytes:
    """The first `count` fields of each row, u8 [rows, count]; raises ValueError where bits follow them."""
    if bits in _FIELDS:
        fields: Bytes = np.take(_FIELDS[bits], indices).view(np.uint8)
    else:
        fields = _fields_across(indices, bits)
    if _left_over(indices, count, bits).any():
        raise ValueError("A compressed weight has bits set after the last position of a row.")
    return fields[:, :count]


def _fields_across(indices: Bytes, bits: int) -> Bytes:
    """The fields of rows where some lie across two bytes, as many as fit."""
    first = np.arange(0, indices.shape[1] * 8 - bits + 1, bits)
    wide = np.pad(indices, ((0, 0), (0, 1))).astype(np.uint16)
    pairs = wide[:, :-1] | wide[:, 1:] << 8
    fields = pairs[:, first // 8] >> (first % 8).astype(np.uint16) & ((1 << bits) - 1)
    return fields.astype(np.uint8)


def _left_over(indices: Bytes, count: int, bits: int) -> Bytes:
    """The bits behind the last field, all of which stand in the last byte."""
    used = count * bits - 8 * (indices.shape[1] - 1)
    return indices[:, -1] >> used if used < 8 else np.zeros(1, np.uint8)
