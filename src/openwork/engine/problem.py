"""Problems, which decide a layer's speed, and tactics, which are the ways to run one: values with a text
form.

The text of a tactic stands in the program, the report and the timing cache, so this is the only place that
writes and reads it:

    tactic = [ ELEMENT ":" ] FORM [ "/" RUN ]

ELEMENT is what is multiplied (i8 where none is named), FORM how the weights are packed (docs/names.md): the
name of a body and its numbers, which another version or machine may have more of. RUN is how a convolution's
activations are read (tap, row or patch; a matrix has one way).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

DENSE = "dense"
ELEMENTS = ("i8", "bf16", "f32")
_FORM = r"dense|depthwise|(?:window|blocks)[1-9][0-9]{0,4}(?:x[1-9][0-9]{0,2})?(?:packed)?"
_TACTIC = re.compile(rf"(?:(i8|bf16|f32):)?({_FORM})(?:/(tap|row|patch))?", re.ASCII)


@dataclass(frozen=True)
class Tactic:
    """One concrete way to run a product: element type, packed form, and for a convolution the way to run."""

    form: str = DENSE
    element: str = "i8"
    run: str = ""

    @staticmethod
    def parse(text: str) -> Tactic:
        """The tactic that `text` writes; raises ValueError, in a sentence, where it writes none."""
        match = _TACTIC.fullmatch(text)
        if match is None:
            raise ValueError(
                f'{text!r} is not a tactic; write it as "FORM", "ELEMENT:FORM" or "ELEMENT:FORM/RUN" (like '
                '"window8", "f32:dense" or "window64/row").'
            )
        return Tactic(match[2], match[1] or "i8", match[3] or "")

    def __str__(self) -> str:
        element = "" if self.element == "i8" else f"{self.element}:"
        return f"{element}{self.form}{'/' if self.run else ''}{self.run}"

    @property
    def dense(self) -> bool:
        """Whether it multiplies zeros as well."""
        return self.form == DENSE


RIVAL = 1.35
"""What is expected to take this many times as much as the best, dense among them, is not timed."""

Work = Mapping[Tactic, float]
"""What a tactic's time is expected to follow for each row, the dense one taking 1."""


@dataclass(frozen=True)
class MatrixProduct:
    """The sizes of x [rows, k] times a weight [n, k]; the rows are not the problem's, since they vary."""

    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.n}x{self.k}"


@dataclass(frozen=True)
class Problem:
    """What decides a layer's speed, its number of rows aside.

    sizes : of the product; a convolution's will be another value with a text of its own. element : of the
    weights, i8, bf16 or f32. activation : the epilogue's. output : u8 or f32. pattern : the text of the one
    that the weights hold. work : of each sparse tactic that may run it; where zeros may be anywhere, the
    pattern's name alone does not say it.
    """

    sizes: MatrixProduct
    element: str
    activation: str
    output: str
    pattern: str | None = None
    work: Work = field(default_factory=dict)

    @property
    def dense(self) -> Tactic:
        """The tactic that every other one is measured by."""
        return Tactic(element=self.element)

    def __str__(self) -> str:
        element = "" if self.element == "i8" else f"{self.element} "
        return f"{element}{self.sizes} {self.pattern or DENSE} {self.activation} {self.output}"


def is_dense(text: str) -> bool:
    """Whether the tactic that `text` writes multiplies zeros as well."""
    return Tactic.parse(text).dense
