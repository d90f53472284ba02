"""Patterns: which weights of a layer may be non-zero.

A pattern is a pure value with a text form. The grammar, over a weight [out, in]:

    pattern  = N ":" M [ "@" V ] N kept of every M consecutive input channels, one mask for V adjacent outputs
             | N ":" M "t"       N kept of every M consecutive inputs, and of every M consecutive outputs
             | R "x" C ":" Z     blocks of R outputs x C inputs live or die together, at least Z of them zero
    N, M, V, R, C = positive integers, N < M;  Z = a decimal fraction, 0 < Z < 1

N:M counts the weights that are *kept*, as NVIDIA does. A last group or block that is cut short by the
weight's edge counts as padded with zeros. A weight may also be a stack of such matrices, [stack, out, in],
one for each tap and group of a convolution (`view.py`): groups, shared masks and blocks lie within one
matrix, and a block pattern's fraction counts over all of them. Sources: Mishra et al. 2021, "Accelerating
Sparse Deep Neural Networks" (2:4); Hubara et al. 2021, "Accelerated Sparse Neural Training" (t,
transposable); Intel Neural Compressor (block patterns).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_GROUPS = re.compile(r"(\d{1,9}):(\d{1,9})(?:(t)|@(\d{1,9}))?", re.ASCII)
_BLOCKS = re.compile(r"(\d{1,9})x(\d{1,9}):(\d{0,9}\.?\d{0,9})", re.ASCII)

_GRAMMAR = (
    'write it as "N:M" (like "2:4"), "N:M@V" (like "2:4@2"), "N:Mt" (like "2:4t", rows and columns) or '
    '"RxC:Z" (like "4x1:0.8", or "1x1:0.9" for unstructured)'
)


@dataclass(frozen=True)
class Violation:
    """One place where a weight breaks its pattern.

    row, group: first output channel and number of the group along the input channels, both from 0; None where
    the pattern speaks of the layer as a whole. kept, allowed: non-zero positions (N:M) or blocks (RxC) found
    and permitted. matrix: which matrix of a stack; None where the weight is one. column: the input channel of
    a group that lies along the output channels (transposable patterns); `group` is counted along them then,
    and `row` is its first.
    """

    pattern: str
    row: int | None
    group: int | None
    kept: int
    allowed: int
    matrix: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.kept} blocks are non-zero where {self.pattern} allows {self.allowed}"
        first = f"row {self.row}" if self.column is None else f"column {self.column}"
        along = "" if self.column is None else " of output channels"
        matrix = "" if self.matrix is None else f"matrix {self.matrix}, "
        place = f"{matrix}{first}, group {self.group}{along}"
        return f"{place}: {self.kept} non-zero weights where {self.pattern} allows {self.allowed}"


class Pattern(ABC):
    """Which weights may be non-zero; `Pattern.parse(text)` makes one and `str(pattern)` gives the text
    back.
    """

    @staticmethod
    def parse(text: str) -> Pattern:
        """The pattern that `text` writes; raises ValueError, in a sentence, if it writes none."""
        bare = text.strip() if isinstance(text, str) else ""
        if match := _GROUPS.fullmatch(bare):
            shared = 1 if match[4] is None else int(match[4])
            return GroupPattern(int(match[1]), int(match[2]), shared, match[3] is not None)
        if (match := _BLOCKS.fullmatch(bare)) and match[3].strip("."):
            return BlockPattern(int(match[1]), int(match[2]), float(match[3]))
        raise ValueError(f"{text!r} is not a sparsity pattern; {_GRAMMAR}.")

    @property
    @abstractmethod
    def zeros(self) -> float:
        """The fraction of weights that are zero, as the pattern states it."""

    @property
    def density(self) -> float:
        """The fraction of weights that are kept: 1 - zeros."""
        return 1.0 - self.zeros

    @abstractmethod
    def violations(self, weight: np.ndarray, limit: int | None = None) -> list[Violation]:
        """The places where `weight` breaks the pattern, first rows first, at most `limit` of them.

        weight: [out, in] or [stack, out, in], any numeric dtype; NaN counts as non-zero.
        Raises ValueError for another number of dimensions or an empty weight.
        """

    def holds(self, weight: np.ndarray) -> bool:
        """Whether `weight`, [out, in] or [stack, out, in], keeps to the pattern."""
        return not self.violations(weight, limit=1)


@dataclass(frozen=True)
class GroupPattern(Pattern):
    """N:M@V: `kept` of every `group` consecutive input channels, one mask for `shared` adjacent output
    channels.

    transposable: at most `kept` of every `group` consecutive output channels as well, so that the transposed
    weight of the backward product keeps to N:M too.
    """

    kept: int
    group: int
    shared: int = 1
    transposable: bool = False

    def __post_init__(self) -> None:
        text = str(self)
        if self.kept < 1 or self.group < 1:
            raise ValueError(f'"{text}" keeps nothing; in N:M both numbers are at least 1.')
        if self.kept >= self.group:
            raise ValueError(
                f'"{text}" prunes nothing; N:M keeps N of every M weights, so N must be smaller than M'
                + (f' (did you mean "{self.group}:{self.kept}"?).' if self.kept > self.group else ".")
            )
        if self.shared < 1:
            raise ValueError(f'"{text}" shares its mask among no output channels; V in N:M@V is at least 1.')
        if self.transposable and self.shared != 1:
            raise ValueError(
                f'"{text}" shares masks among rows and is transposable; a pattern is one or the other.'
            )

    def __str__(self) -> str:
        shared = f"@{self.shared}" if self.shared != 1 else ""
        return f"{self.kept}:{self.group}{'t' if self.transposable else ''}{shared}"

    @property
    def zeros(self) -> float:
        return 1.0 - self.density

    @property
    def density(self) -> float:
        return self.kept / self.group

    def violations(self, weight: np.ndarray, limit: int | None = None) -> list[Violation]:
        found = list(islice(self._rows(weight), limit))
        if self.transposable and (limit is None or len(found) < limit):
            found += islice(self._columns(weight), None if limit is None else limit - len(found))
        return found

    def _rows(self, weight: np.ndarray) -> Iterator[Violation]:
        for i, row, group, kept in _overfull(_stack(weight) != 0, self):
            yield Violation(str(self), row, group, kept, self.kept, i if weight.ndim == 3 else None)

    def _columns(self, weight: np.ndarray) -> Iterator[Violation]:
        for i, column, group, kept in _overfull(_stack(weight).swapaxes(1, 2) != 0, self):
            matrix = i if weight.ndim == 3 else None
            yield Violation(str(self), group * self.group, group, kept, self.kept, matrix, column)


@dataclass(frozen=True)
class BlockPattern(Pattern):
    """RxC:Z: blocks of `rows` x `columns` weights live or die together and at least the fraction `fraction`
    is zero.
    """

    rows: int
    columns: int
    fraction: float

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f'"{self}" has an empty block; in RxC both numbers are at least 1.')
        if not 0.0 < self.fraction < 1.0:
            raise ValueError(
                f'"{self}" asks for the fraction {self.fraction:g} of zeros; Z in RxC:Z lies between 0 and 1.'
            )

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}:{format(Decimal(repr(self.fraction)), 'f')}"

    @property
    def zeros(self) -> float:
        return self.fraction

    def zero_blocks(self, blocks: int) -> int:
        """How many of `blocks` blocks must be zero: floor(Z * blocks), exact in decimal."""
        return int(Decimal(repr(self.fraction)) * blocks)

    def live(self, weight: np.ndarray) -> np.ndarray:
        """Which blocks of `weight` [out, in] hold a non-zero weight: bool [ceil(out / R), ceil(in / C)]; of a
        stack [stack, out, in], the same for each matrix.
        """
        import numpy as np

        used = _padded(_stack(weight) != 0, self.rows, self.columns)
        blocks = used.reshape(len(used), used.shape[1] // self.rows, self.rows, -1, self.columns)
        live = np.asarray(blocks.any(axis=(2, 4)))
        return live if weight.ndim == 3 else live[0]

    def violations(self, weight: np.ndarray, limit: int | None = None) -> list[Violation]:
        blocks = self.live(weight)
        kept, allowed = int(blocks.sum()), blocks.size - self.zero_blocks(blocks.size)
        return [Violation(str(self), None, None, kept, allowed)][:limit] if kept > allowed else []


def _overfull(used: np.ndarray, pattern: GroupPattern) -> Iterator[tuple[int, int, int, int]]:
    """Matrix, first row, group and count of the groups of `used`, [stack, out, in], with too many
    non-zeros.
    """
    import numpy as np

    padded = _padded(used, pattern.shared, pattern.group)
    high = padded.shape[1] // pattern.shared
    grouped = padded.reshape(len(padded), high, pattern.shared, -1, pattern.group)
    counts = grouped.any(axis=2).sum(axis=3)
    for matrix, row, group in np.argwhere(counts > pattern.kept):
        yield int(matrix), int(row) * pattern.shared, int(group), int(counts[matrix, row, group])


def _stack(weight: np.ndarray) -> np.ndarray:
    if weight.ndim not in (2, 3) or weight.size == 0:
        raise ValueError(
            "A weight must be a non-empty matrix [out, in] or a stack of them [stack, out, in], but its "
            f"shape is {list(weight.shape)}."
        )
    return weight if weight.ndim == 3 else weight[None]


def _padded(used: np.ndarray, rows: int, columns: int) -> np.ndarray:
    import numpy as np

    return np.pad(used, ((0, 0), (0, -used.shape[1] % rows), (0, -used.shape[2] % columns)))
