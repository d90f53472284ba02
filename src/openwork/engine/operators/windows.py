"""The windows that slide over images: their attributes, and the sizes that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from openwork.engine.operators.attribute import integers
from openwork.engine.operators.contract import Form, Problem
from openwork.engine.shapes import Dim, Letters

LARGEST_WINDOW = 65_535
"""Of a kernel, a stride, a dilation or a padding."""


class Axis(NamedTuple):
    """How a window slides along one axis of an image; sizes in pixels."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """Pixels from the window's first one to its last."""
        return (self.kernel - 1) * self.dilation + 1

    def made(self, size: int) -> int:
        """The number of windows in `size` pixels; below 1 where none fits."""
        return (size + self.before + self.after - self.reach) // self.stride + 1

    @property
    def keeps_size(self) -> bool:
        """Whether there are as many windows as pixels, however many these are."""
        return self.stride == 1 and self.before + self.after == self.reach - 1


WINDOW = (
    *(integers(name, 2, 1, LARGEST_WINDOW) for name in ("kernel", "strides", "dilations")),
    integers("pads", 4, 0, LARGEST_WINDOW),
)
"""The attributes of a window, height before width; pads are top, left, bottom, right."""


def axes(attributes: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """How a window of these attributes slides along height and width."""
    kernel, strides, dilations, pads = (attributes[attribute.name] for attribute in WINDOW)
    height, width = (Axis(kernel[i], strides[i], dilations[i], pads[i], pads[i + 2]) for i in (0, 1))
    return height, width


def slides(form: Form, letters: Letters) -> Problem | None:
    """Binds P and Q, the height and width of what is made, to those of the image, H and W."""
    for axis, given, made in zip(axes(form.attributes), "HW", "PQ", strict=True):
        found = _along(axis, letters.size(given))
        if isinstance(found, Problem):
            return found
        if not letters.bind(made, found):
            name = "height" if given == "H" else "width"
            return Problem("pads", f"such that the {name} becomes {letters.size(made)}", f"{found}")
    return None


def _along(axis: Axis, size: Dim | None) -> Dim | Problem | None:
    if axis.keeps_size or size is None:
        return size
    if isinstance(size, str):
        return None
    made = axis.made(size)
    if made < 1:
        padded = size + axis.before + axis.after
        return Problem("x", f"at least {axis.reach} pixels wide and high with its pads", f"{padded} pixels")
    return made
