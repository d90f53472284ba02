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


def rounded_sums(form: Form, _: Letters) -> Problem | None:
    """Sums that are rounded before the residual have no activation before it."""
    given = form.attributes
    if "sum_scale" not in given or given["activation"] == "none" or given.get("activation_last"):
        return None
    return Problem("activation_last", "1 where 'sum_scale' is there", str(given.get("activation_last", 0)))


def counts_from_the_front(form: Form, _: Letters) -> Problem | None:
    """Positions that count tokens have no past before them."""
    if "padding_id" in form.attributes and form.has("behind"):
        return Problem("behind", "absent where 'padding_id' is there", "there")
    return None


def divides(attribute: str, letter: str) -> Check:
    """An attribute divides a dimension, which is fixed."""

    def check(form: Form, letters: Letters) -> Problem | None:
        width, value = letters.size(letter), form.attributes[attribute]
        if width is None or (isinstance(width, int) and width % value == 0):
            return None
        return Problem(attribute, f"a divisor of the width {width}", str(value))

    return check


def weight_of_windows(form: Form, letters: Letters) -> Problem | None:
    """A convolution's weight [N, R, S, G]: its kernel, and groups of G channels that share out N."""
    groups, kernel = form.attributes["groups"], form.attributes["kernel"]
    for letter, size in zip("RS", kernel, strict=True):
        if not letters.bind(letter, size):
            found = f"{letters.size('R')} x {letters.size('S')}"
            return Problem("weight", f"of {kernel[0]} x {kernel[1]} taps, as 'kernel' has it", found)
    inputs, each, outputs = (letters.size(letter) for letter in "CGN")
    if isinstance(inputs, int) and isinstance(each, int) and inputs != groups * each:
        return Problem(
            "groups", f"such that groups of {each} channels make up the {inputs} of x", str(groups)
        )
    if isinstance(outputs, int) and outputs % groups:
        return Problem("groups", f"a divisor of the {outputs} output channels", str(groups))
    return None


def side_by_side(form: Form, letters: Letters) -> Problem | None:
    """All values of x have one shape but for the axis, along which the result is as long as all together."""
    shapes = [operand.shape for operand in form.given("x")]
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return None
    axis, made = form.attributes["axis"], list(known[0])
    if axis >= len(made):
        return Problem("axis", f"below the number of dimensions, {len(made)}", str(axis))
    for shape in known[1:]:
        fits = len(shape) == len(made) and all(
            place == axis or letters.equal(a, b) for place, (a, b) in enumerate(zip(made, shape, strict=True))
        )
        if not fits:
            return Problem("x", f"of the shape {made} but for the axis {axis}", str(list(shape)))
        made = [b if a is None else a for a, b in zip(made, shape, strict=True)]
    sizes = [None if shape is None else shape[axis] for shape in shapes]
    if len(sizes) > 1 and any(isinstance(size, str) for size in sizes):
        return Problem("x", f"of fixed sizes along the axis {axis}", str(sizes))
    numbers = [size for size in sizes if isinstance(size, int)]
    made[axis] = sizes[0] if len(sizes) == 1 else sum(numbers) if len(numbers) == len(sizes) else None
    letters.lead(tuple(made))
    return None


def tables_of_integers(form: Form, letters: Letters) -> Problem | None:
    """Tables go with integers, a row for each value of x."""
    if not form.has("tables"):
        return None
    floats = [operand for operand in form.given("x") if operand.dtype not in (None, "u8")]
    if floats:
        return Problem("tables", "absent where x is not u8", f"given with {floats[0].dtype}")
    rows = (form.given("tables")[0].shape or (None,))[0]
    count = len(form.given("x"))
    if rows is not None and rows != count:
        return Problem("tables", f"a row for each value of x, {count}", f"{rows} rows")
    return None
