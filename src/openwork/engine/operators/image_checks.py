"""Conditions of the operators on images."""

from __future__ import annotations

from openwork.engine.operators.contract import Form, Problem
from openwork.engine.shapes import Letters

MOST_PIXELS = 2**23
"""Of which INT32 holds the sum of bytes."""


def overhang_is_padding(form: Form, _: Letters) -> Problem | None:
    """Pixels at the bottom and at the right that a mean never counts belong to the pads there."""
    overhang = form.attributes.get("overhang", (0, 0))
    ends = form.attributes["pads"][2:]
    if all(over <= end for over, end in zip(overhang, ends, strict=True)):
        return None
    return Problem(
        "overhang", f"at most the pads at the bottom and at the right, {list(ends)}", f"{overhang}"
    )


def few_pixels(form: Form, letters: Letters) -> Problem | None:
    """A mean of bytes is over so few pixels that their sum is exact in INT32."""
    if "x_scale" not in form.attributes:
        return None
    sizes = [letters.size(letter) for letter in "HW"]
    kernel = form.attributes.get("kernel", sizes)
    known = [
        min(a, b) if isinstance(b, int) else a
        for a, b in zip(kernel, sizes, strict=True)
        if isinstance(a, int)
    ]
    pixels = known[0] * known[1] if len(known) == 2 else 0
    if pixels <= MOST_PIXELS:
        return None
    place = "kernel" if "kernel" in form.attributes else "x"
    return Problem(place, f"of at most {MOST_PIXELS} pixels, whose sum INT32 holds", f"of {pixels}")


def padded(form: Form, letters: Letters) -> Problem | None:
    """Binds height, width and channels of a padded image; a free size stays where nothing is added."""
    pads = form.attributes["pads"]
    for axis, (given, made) in enumerate(zip("HWC", "PQN", strict=True)):
        size, more = letters.size(given), pads[axis] + pads[axis + 3]
        if more:
            size = size + more if isinstance(size, int) else None
        if not letters.bind(made, size):
            return Problem("pads", f"such that the size becomes {letters.size(made)}", f"{size}")
    return None


def enlarged(form: Form, letters: Letters) -> Problem | None:
    """Binds height and width of an image of which every pixel stands several times; a free size stays where
    it stands once."""
    for factor, given, made in zip(form.attributes["factors"], "HW", "PQ", strict=True):
        size = letters.size(given)
        if factor > 1:
            size = factor * size if isinstance(size, int) else None
        if not letters.bind(made, size):
            return Problem("factors", f"such that the size becomes {letters.size(made)}", f"{size}")
    return None


def value_of_bytes(form: Form, _: Letters) -> Problem | None:
    """The border of an image of u8 is one of its integers."""
    value = form.attributes["value"]
    if all(operand.dtype != "u8" for operand in form.given("x")):
        return None
    if 0 <= value <= 255 and value == int(value):
        return None
    return Problem("value", "an integer from 0 to 255 for an image of u8", f"{value}")


def quantizes_floats(form: Form, _: Letters) -> Problem | None:
    """Only floats are quantized."""
    if "y_scale" in form.attributes and any(operand.dtype == "u8" for operand in form.given("x")):
        return Problem("y_scale", "absent where x is u8", "given")
    return None
