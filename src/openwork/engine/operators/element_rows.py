"""The rows of the operators on the elements of two values, and of tables of bytes."""

from __future__ import annotations

from openwork.engine.operators.activations import ACTIVATIONS
from openwork.engine.operators.attribute import Attribute, number, quantizer
from openwork.engine.operators.contract import Form, Operator, Problem
from openwork.engine.operators.slot_words import tensor, value
from openwork.engine.shapes import Letters, Partial

CLAMPS = ("none", "relu", "clip")
"""The activations that an operator on two values may end with."""


def _one_other(form: Form, _: Letters) -> Problem | None:
    """a meets a value or a stored tensor."""
    if form.has("b") != form.has("constant"):
        return None
    found = "given with 'constant'" if form.has("b") else "absent, and so is 'constant'"
    return Problem("b", "given exactly where 'constant' is absent", found)


def _other_shape(form: Form, letters: Letters) -> Problem | None:
    """b has the shape of a, or is one pixel [B, 1, 1, C] for each image; a constant is one number or [C]."""
    shape = letters.fill(("...",))
    other = next((operand.shape for name in ("b", "constant") for operand in form.given(name)), None)
    if other is None or form.has("b") == form.has("constant"):
        return None
    if form.has("constant"):
        return _constant_shape(letters, shape, other)
    pixel = len(other) == 4 and other[1:3] == (1, 1)
    if shape is None:
        if not pixel:
            letters.lead(other)
        return None
    if pixel and len(shape) == 4 and shape[1:3] != (1, 1):
        fits = letters.equal(shape[0], other[0]) and letters.equal(shape[3], other[3])
    else:
        fits = letters.lead(other)
    expected = f"of the shape of a, {list(shape)}, or one pixel for each image"
    return None if fits else Problem("b", expected, f"{list(other)}")


def _constant_shape(letters: Letters, shape: Partial | None, other: Partial) -> Problem | None:
    # One number says nothing of the last dimension, which may be free.
    if other == (1,):
        return None
    last = None if shape is None else shape[-1:]
    channels = last is None or (len(last) == 1 and letters.equal(last[0], other[0]))
    fits = len(other) == 1 and channels
    expected = f"one number, or one for each of the last dimension of a, {list(shape or ())}"
    return None if fits else Problem("constant", expected, f"{list(other)}")


def _clamp_numbers(form: Form, _: Letters) -> Problem | None:
    """The ends of a clip, in order, and no number without one."""
    name = form.attributes.get("activation", "none")
    given = [number for number in ("alpha", "beta") if number in form.attributes]
    if given != list(ACTIVATIONS[name]):
        return Problem(
            "activation", f"{name} with exactly the numbers {list(ACTIVATIONS[name])}", f"{name} with {given}"
        )
    low, high = (form.attributes.get(number, 0.0) for number in ("alpha", "beta"))
    if low > high:
        return Problem("alpha", "at most 'beta', the other end of the clip", f"{low} with a 'beta' of {high}")
    return None


def _on_two_values(name: str) -> Operator:
    return Operator(
        name,
        (
            value("a", "f32|u8", "...", scale="a_scale"),
            value("b", "f32|u8", "*", optional=True, scale="b_scale"),
            tensor("constant", "f32", "*", optional=True),
        ),
        (value("y", "f32|u8", "...", scale="y_scale"),),
        (
            *quantizer("a"),
            *quantizer("b", needs=("b",)),
            *quantizer("y"),
            Attribute("activation", "string", choices=CLAMPS, optional=True),
            number("alpha", optional=True, needs=("activation",)),
            number("beta", optional=True, needs=("activation",)),
        ),
        derive=_other_shape,
        checks=(_one_other, _clamp_numbers),
        layout="any",
    )


ADD = _on_two_values("Add")
MULTIPLY = _on_two_values("Multiply")
LOOKUP = Operator(
    "Lookup",
    (value("x", "u8", "..."), tensor("table", "u8", "256")),
    (value("y", "u8", "..."),),
    layout="any",
)
ELEMENT_ROWS = (ADD, MULTIPLY, LOOKUP)
