"""The canonical compressed form of N:M weights (docs/program.md): kept values and bit-packed positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Weights = NDArray[np.int8]

LARGEST_GROUP = 1 << 16


@dataclass(frozen=True)
class Compressed:
    """An N:M weight matrix of `n` output and `k` input channels.

    values : s8 [n, ceil(k / group) * kept], the kept weights in order of their position.
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

    weight : s8 [n, k].
    raises ValueError where the weight has another type or shape or breaks the pattern.
    """
    if weight.ndim != 2 or weight.dtype != np.int8:
        raise ValueError(
            f"A weight is compressed from int8 [n, k], but it is {weight.dtype} {list(weight.shape)}."
        )
    n, k = weight.shape
    (_, columns), _ = shapes(n, k, kept, group)
    padded = np.zeros((n, -(-k // group) * group), np.int8)
    padded[:, :k] = weight
    groups = padded.reshape(n, -1, group)
    _refuse_overfull(groups, kept, group)
    # A stable sort puts the non-zero positions first, each part in increasing order: the first `kept` are
    # the non-zero ones filled up with the lowest free positions.
    chosen = np.sort(np.argsort(groups == 0, axis=2, kind="stable")[:, :, :kept], axis=2)
    values = np.take_along_axis(groups, chosen, axis=2).reshape(n, columns)
    return Compressed(values, _pack(chosen.reshape(n, columns), field_bits(group)), kept, group, k)


def decompress(compressed: Compressed) -> Weights:
    """The dense weight s8 [n, k]; raises ValueError, naming what is wrong, unless the form is the canonical
    one."""
    chosen = positions(compressed)
    n = compressed.values.shape[0]
    groups = np.zeros((n, chosen.shape[1], compressed.group), np.int8)
    np.put_along_axis(groups, chosen, compressed.values.reshape(chosen.shape), axis=2)
    dense = groups.reshape(n, -1)
    if dense[:, compressed.k :].any():
        raise ValueError(
            f"A compressed weight has a non-zero value beyond its {compressed.k} input channels."
        )
    return np.ascontiguousarray(dense[:, : compressed.k])


def check(compressed: Compressed) -> None:
    """Refuse, with a ValueError, whatever `compress` would not have written: each byte has one right
    value."""
    again = compress(decompress(compressed), compressed.kept, compressed.group)
    if not np.array_equal(again.indices, compressed.indices):
        row = int(np.flatnonzero((again.indices != compressed.indices).any(axis=1))[0])
        raise ValueError(
            f"Row {row} of a compressed weight fills a group up at other than its lowest free positions."
        )


def positions(compressed: Compressed) -> NDArray[np.int64]:
    """The positions [n, groups, kept] of the kept values within their groups.

    Raises ValueError unless the arrays have the right shapes and every position lies inside its group, above
    the one before it.
    """
    values, indices = compressed.values, compressed.indices
    if values.ndim != 2 or values.dtype != np.int8 or indices.ndim != 2 or indices.dtype != np.uint8:
        raise ValueError("A compressed weight has int8 values [n, kept] and uint8 indices [n, bytes].")
    kept, group, bits = compressed.kept, compressed.group, field_bits(compressed.group)
    expected = shapes(values.shape[0], compressed.k, kept, group)
    if (values.shape, indices.shape) != expected:
        raise ValueError(
            f"A {kept}:{group} weight with {compressed.k} input channels has values {list(expected[0])} "
            f"and indices "
            f"{list(expected[1])}, but they are {list(values.shape)} and {list(indices.shape)}."
        )
    chosen = _unpack(indices, values.shape[1], bits).reshape(values.shape[0], -1, kept)
    if (chosen >= group).any():
        raise ValueError(f"A {kept}:{group} weight has a position {int(chosen.max())} outside its group.")
    if (np.diff(chosen, axis=2) <= 0).any():
        row = int(np.argwhere(np.diff(chosen, axis=2) <= 0)[0][0])
        raise ValueError(
            f"Row {row} of a {kept}:{group} weight has positions that do not increase within a group."
        )
    return chosen


def _refuse_overfull(groups: NDArray[np.int8], kept: int, group: int) -> None:
    counts = np.count_nonzero(groups, axis=2)
    if (counts > kept).any():
        row, block = (int(i) for i in np.argwhere(counts > kept)[0])
        raise ValueError(
            f"The weight breaks {kept}:{group}: row {row}, input channels {block * group} to "
            f"{block * group + group - 1}, has {counts[row, block]} non-zero weights."
        )


def _pack(positions: NDArray[np.int64], bits: int) -> Bytes:
    fields = (positions[:, :, None] >> np.arange(bits)) & 1
    return np.packbits(fields.astype(np.uint8).reshape(len(positions), -1), axis=1, bitorder="little")


def _unpack(indices: Bytes, count: int, bits: int) -> NDArray[np.int64]:
    flat = np.unpackbits(indices, axis=1, bitorder="little")
    if flat[:, count * bits :].any():
        raise ValueError("A compressed weight has bits set after the last position of a row.")
    fields = flat[:, : count * bits].reshape(len(indices), count, bits)
    return fields @ (1 << np.arange(bits, dtype=np.int64))
