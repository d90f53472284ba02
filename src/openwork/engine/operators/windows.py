"""The windows that slide over images: their attributes, and the sizes that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from openwork.engine.operators.attribute import Attribute, integers
from openwork.engine.operators.contract import Check, Form, Problem
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


def window(kernel: bool) -> tuple[Attribute, ...]:
    """The attributes of a window, height before width: strides, dilations, pads (top, left, bottom, right),
    and the kernel's sizes where no weight has them."""
    sized = ("kernel", "strides", "dilations") if kernel else ("strides", "dilations")
    sizes = tuple(integers(name, 2, 1, LARGEST_WINDOW) for name in sized)
    return (*sizes, integers("pads", 4, 0, LARGEST_WINDOW))


def axes(form: Form, kernel: Sequence[int]) -> tuple[Axis, Axis]:
    """Height and width of a node with the attributes of `window` and a kernel of these sizes."""
    at = form.attributes
    pads = at["pads"]
    return tuple(  # type: ignore[return-value]
        Axis(kernel[i], at["strides"][i], at["dilations"][i], pads[i], pads[i + 2]) for i in (0, 1)
    )


def slides(kernel: Sequence[str] = ()) -> Check:
    """Binds P and Q, the height and width of what is made, to those of the image, H and W.

    kernel : the letters of a weight's sizes; without them the attribute `kernel` has them.
    """

    def derive(form: Form, letters: Letters) -> Problem | None:
        sizes = [letters.size(word) for word in kernel] or list(form.attributes["kernel"])
        if not all(isinstance(size, int) for size in sizes):
            return None
        for axis, given, made in zip(axes(form, sizes), "HW", "PQ", strict=True):  # type: ignore[arg-type]
            found = _along(axis, letters.size(given))
            if isinstance(found, Problem):
                return found
            if not letters.bind(made, found):
                name = "height" if given == "H" else "width"
                return Problem("pads", f"such that the {name} becomes {letters.size(made)}", f"{found}")
        return None

    return derive


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
