"""Conditions that single rows add to what slots and attributes say."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS
from openwork.engine.operators.contract import Check, Form, Problem
from openwork.engine.shapes import Letters


def activation_numbers(form: Form, _: Letters) -> Problem | None:
    """The numbers of the activation that is named: all of them, and no other."""
    name = form.attributes["activation"]
    needed = set(ACTIVATIONS[name])
    given = {number for number in ("alpha", "beta") if number in form.attributes}
    if given == needed:
        return None
    expected = f"{name} with exactly the numbers {sorted(needed)}"
    return Problem("activation", expected, f"{name} with {sorted(given)}")


def ends_in_order(form: Form, _: Letters) -> Problem | None:
    """The ends of a clip."""
    low, high = form.attributes["alpha"], form.attributes["beta"]
    if low <= high:
        return None
    return Problem("alpha", "at most 'beta', the other end of the clip", f"{low} with a 'beta' of {high}")


def ordered_clip(form: Form, letters: Letters) -> Problem | None:
    """The ends of the activation where it is a clip."""
    return ends_in_order(form, letters) if form.attributes["activation"] == "clip" else None


def divides(attribute: str, letter: str) -> Check:
    """An attribute divides a dimension, which is fixed."""

    def check(form: Form, letters: Letters) -> Problem | None:
        width, value = letters.size(letter), form.attributes[attribute]
        if width is None or (isinstance(width, int) and width % value == 0):
            return None
        return Problem(attribute, f"a divisor of the width {width}", str(value))

    return check


def packed_or_three(form: Form, letters: Letters) -> Problem | None:
    """q alone holds q, k and v side by side, so that H is a third of its width; else all three have H."""
    width = letters.size("Q")
    if form.has("k"):
        if letters.bind("H", width):
            return None
        return Problem("q", f"as wide as k and v, {letters.size('H')}", str(width))
    if width is None:
        return None
    if not isinstance(width, int) or width % 3 or not letters.bind("H", width // 3):
        return Problem("q", "three times as wide as the result where k and v are absent", str(width))
    return None
