"""Patterns: which weights of a layer may be non-zero.

A pattern is a pure value with a text form. The grammar, over a weight [out, in]:

    pattern  = N ":" M [ "@" V ] N kept of every M consecutive input channels, one mask for V adjacent outputs
             | R "x" C ":" Z     blocks of R outputs x C inputs live or die together, at least Z of them zero
    N, M, V, R, C = positive integers, N < M;  Z = a decimal fraction, 0 < Z < 1

N:M counts the weights that are *kept*, as NVIDIA does. A last group or block that is cut short by the
weight's edge counts as padded with zeros. Sources: Mishra et al. 2021, "Accelerating Sparse Deep Neural
Networks" (2:4); Intel Neural Compressor (block patterns).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_GROUPS = re.compile(r"(\d{1,9}):(\d{1,9})(?:@(\d{1,9}))?", re.ASCII)
_BLOCKS = re.compile(r"(\d{1,9})x(\d{1,9}):(\d{0,9}\.?\d{0,9})", re.ASCII)

_GRAMMAR = (
    'write it as "N:M" (like "2:4"), "N:M@V" (like "2:4@2") or "RxC:Z" (like "4x1:0.8", or "1x1:0.9" for '
    "unstructured)"
)


@dataclass(frozen=True)
class Violation:
    """One place where a weight breaks its pattern.

    row, group: first output channel and number of the group along the input channels, both from 0; None where
    the pattern speaks of the layer as a whole. kept, allowed: non-zero positions (N:M) or blocks (RxC) found
    and permitted.
    """

    pattern: str
    row: int | None
    group: int | None
    kept: int
    allowed: int

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.kept} blocks are non-zero where {self.pattern} allows {self.allowed}"
        place = f"row {self.row}, group {self.group}"
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
            return GroupPattern(int(match[1]), int(match[2]), 1 if match[3] is None else int(match[3]))
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

        weight: [out, in], any numeric dtype; NaN counts as non-zero.
        Raises ValueError for another number of dimensions or an empty weight.
        """

    def holds(self, weight: np.ndarray) -> bool:
        """Whether `weight` [out, in] keeps to the pattern."""
        return not self.violations(weight, limit=1)


@dataclass(frozen=True)
class GroupPattern(Pattern):
    """N:M@V: `kept` of every `group` consecutive input channels, one mask for `shared` adjacent output
    channels.
    """

    kept: int
    group: int
    shared: int = 1

    def __post_init__(self) -> None:
        text = f"{self.kept}:{self.group}" + (f"@{self.shared}" if self.shared != 1 else "")
        if self.kept < 1 or self.group < 1:
            raise ValueError(f'"{text}" keeps nothing; in N:M both numbers are at least 1.')
        if self.kept >= self.group:
            raise ValueError(
                f'"{text}" prunes nothing; N:M keeps N of every M weights, so N must be smaller than M'
                + (f' (did you mean "{self.group}:{self.kept}"?).' if self.kept > self.group else ".")
            )
        if self.shared < 1:
            raise ValueError(f'"{text}" shares its mask among no output channels; V in N:M@V is at least 1.')

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}" + (f"@{self.shared}" if self.shared > 1 else "")

    @property
    def zeros(self) -> float:
        return 1.0 - self.density

    @property
    def density(self) -> float:
        return self.kept / self.group

    def violations(self, weight: np.ndarray, limit: int | None = None) -> list[Violation]:
        import numpy as np

        used = _padded(_matrix(weight) != 0, self.shared, self.group)
        grouped = used.reshape(used.shape[0] // self.shared, self.shared, -1, self.group)
        counts = grouped.any(axis=1).sum(axis=2)
        return [
            Violation(str(self), int(row) * self.shared, int(group), int(counts[row, group]), self.kept)
            for row, group in np.argwhere(counts > self.kept)[:limit]
        ]


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
        """Which blocks of `weight` [out, in] hold a non-zero weight: bool [ceil(out / R), ceil(in / C)]."""
        import numpy as np

        used = _padded(_matrix(weight) != 0, self.rows, self.columns)
        blocks = used.reshape(used.shape[0] // self.rows, self.rows, -1, self.columns)
        return np.asarray(blocks.any(axis=(1, 3)))

    def violations(self, weight: np.ndarray, limit: int | None = None) -> list[Violation]:
        blocks = self.live(weight)
        kept, allowed = int(blocks.sum()), blocks.size - self.zero_blocks(blocks.size)
        return [Violation(str(self), None, None, kept, allowed)][:limit] if kept > allowed else []


def _matrix(weight: np.ndarray) -> np.ndarray:
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(
            f"A weight must be a non-empty matrix [out, in], but its shape is {list(weight.shape)}."
        )
    return weight


def _padded(used: np.ndarray, rows: int, columns: int) -> np.ndarray:
    import numpy as np

    return np.pad(used, ((0, -used.shape[0] % rows), (0, -used.shape[1] % columns)))
