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
from dataclasses import dataclass, field, replace

DENSE = "dense"
ELEMENTS = ("i8", "bf16", "f32")
_FORM = (
    r"dense|depthwise|tiles(?:[1-9][0-9]{0,4})?(?:packed)?"
    r"|(?:window|blocks)[1-9][0-9]{0,4}(?:x[1-9][0-9]{0,2})?(?:packed)?"
)
_TACTIC = re.compile(rf"(?:(i8|bf16|f32):)?({_FORM})(?:/(tap|row|patch))?", re.ASCII)


WHOLE = frozenset({DENSE, "depthwise", "tiles"})
"""Forms that leave no zero out."""


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


Image = tuple[int, int, int]
"""Batch, height and width."""


@dataclass(frozen=True)
class Convolution:
    """The sizes of a convolution: n output channels, `channels` input channels in each group, kernel,
    strides, dilations (height, width) and pads (top, left, bottom, right), and the images that it is timed
    on."""

    n: int
    channels: int
    kernel: tuple[int, int]
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    image: Image = (1, 1, 1)

    @property
    def k(self) -> int:
        """The weights of an output channel."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def __str__(self) -> str:
        texts = [f"{self.n}x{self.channels} kernel {_by(self.kernel)}"]
        texts += [f"groups {self.groups}"] if self.groups > 1 else []
        texts += [f"strides {_by(self.strides)}"] if self.strides != (1, 1) else []
        texts += [f"dilations {_by(self.dilations)}"] if self.dilations != (1, 1) else []
        texts += [f"pads {_by(self.pads)}"] if any(self.pads) else []
        return " ".join([*texts, f"on {_by(self.image)}"])


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


Sizes = MatrixProduct | Convolution


@dataclass(frozen=True)
class Problem:
    """What decides a layer's speed, its number of rows aside.

    sizes : of the product. element : of the weights, i8, bf16 or f32. activation : the epilogue's. output :
    u8 or f32. pattern : the text of the one that the weights hold. work : of each sparse tactic that may run
    it; where zeros may be anywhere, the pattern's name alone does not say it. bases : the tactics that leave
    no zero out. The first, `base`, is dense, or where the dense form does not hold the weight (few channels
    in each group) the one that holds any; others are a matrix unit's.
    """

    sizes: Sizes
    element: str
    activation: str
    output: str
    pattern: str | None = None
    work: Work = field(default_factory=dict)
    bases: tuple[Tactic, ...] = (Tactic(),)

    @property
    def base(self) -> Tactic:
        """The first of the bases, by which the work of others is measured."""
        return self.bases[0]

    def on(self, image: Image) -> Problem:
        """The same for images of another size; a matrix product has none."""
        return (
            self
            if isinstance(self.sizes, MatrixProduct)
            else replace(self, sizes=replace(self.sizes, image=image))
        )

    def __str__(self) -> str:
        element = "" if self.element == "i8" else f"{self.element} "
        return f"{element}{self.sizes} {self.pattern or DENSE} {self.activation} {self.output}"
