"""The row of Attention, and how the sizes of what it reads and makes hang together."""

from __future__ import annotations

from openwork.engine.operators.attribute import flag, integer, quantizer, scale
from openwork.engine.operators.contract import Form, Operator, Problem, Slot
from openwork.engine.operators.slot_words import value
from openwork.engine.shapes import Dim, Letters

PAST_LENGTH = "P"
"""The letter of the keys that a past holds: none at the beginning of a text."""


def _past(name: str, other: str) -> Slot:
    words = ("B", "G", PAST_LENGTH, "D")
    return Slot(name, ("f32",), words, optional=True, needs=(other,), may_be_zero=PAST_LENGTH)


def sizes_of_attention(form: Form, letters: Letters) -> Problem | None:
    """Heads and their size, and how many keys there are: those of the past and the new ones."""
    return _heads(form, letters) or _length(form, letters)


def _heads(form: Form, letters: Letters) -> Problem | None:
    """H = heads * D, K = G * D, G = kv_heads; of one value, q, the width is H + 2 K."""
    heads = form.attributes["heads"]
    groups = form.attributes.get("kv_heads", heads)
    if heads % groups:
        return Problem("kv_heads", f"a divisor of the {heads} heads", str(groups))
    if not letters.bind("G", groups):
        return Problem("past_k", f"of {groups} heads of keys", str(letters.size("G")))
    width = letters.size("Q")
    if width is None:
        return None
    packed = not form.has("k") and not _alone(form, letters)
    parts = heads + 2 * groups if packed else heads
    if not isinstance(width, int) or width % parts:
        return _width_problem(width, heads, groups, packed)
    return _bind_widths(letters, heads, groups, width // parts)


def _width_problem(width: Dim, heads: int, groups: int, packed: bool) -> Problem:
    if not packed:
        return Problem("heads", f"a divisor of the width {width}", str(heads))
    if heads != groups:
        what = f"a multiple of {heads + 2 * groups}, the heads of queries, keys and values"
        return Problem("q", f"as wide as {what}, where k and v are absent", str(width))
    if not isinstance(width, int) or width % 3:
        return Problem("q", "three times as wide as the result where k and v are absent", str(width))
    return Problem("heads", f"a divisor of the width {width // 3}", str(heads))


def _bind_widths(letters: Letters, heads: int, groups: int, size: int) -> Problem | None:
    for letter, width, slot in (("D", size, "past_k"), ("H", heads * size, "q"), ("K", groups * size, "k")):
        if not letters.bind(letter, width):
            return Problem(slot, f"as wide as the heads of q make it, {width}", str(letters.size(letter)))
    return None


def _alone(form: Form, letters: Letters) -> bool:
    """Whether q is the queries alone, and the past all there is of keys and values."""
    size = letters.size("D")
    return (
        form.has("past_k") and isinstance(size, int) and letters.size("Q") == form.attributes["heads"] * size
    )


def _length(form: Form, letters: Letters) -> Problem | None:
    """T, all keys, of S new ones and P of the past; the queries' own where these are packed."""
    new: Dim | None = (
        letters.size("S") if form.has("k") else 0 if _alone(form, letters) else letters.size("L")
    )
    past: Dim | None = letters.size(PAST_LENGTH) if form.has("past_k") else 0
    if new == 0 or past == 0:
        total = past if new == 0 else new
    else:
        total = past + new if isinstance(past, int) and isinstance(new, int) else None
    if letters.bind("T", total):
        return None
    return Problem("mask", f"of {total} keys, those of past_k and the new ones", str(letters.size("T")))


def broadcast_bias(form: Form, letters: Letters) -> Problem | None:
    """A bias has one of each dimension that it does not have whole; its batch divides that of q."""
    if not form.has("bias"):
        return None
    heads = form.attributes["heads"]
    for word, whole in (("b", letters.size("B")), ("h", heads), ("l", letters.size("L"))):
        size = letters.size(word)
        if size == 1 or letters.equal(size, whole):
            continue
        if word == "b" and isinstance(size, int) and isinstance(whole, int) and whole % size == 0:
            continue
        return Problem("bias", f"of 1 or {whole} where it has {size}", str(size))
    return None


ATTENTION = Operator(
    "Attention",
    (
        value("q", "f32", "B L Q"),
        Slot("k", ("f32",), ("B", "S", "K"), optional=True, needs=("v",)),
        Slot("v", ("f32",), ("B", "S", "K"), optional=True, needs=("k",)),
        value("mask", "i64", "B T", optional=True),
        value("bias", "f32", "b h l T", optional=True),
        _past("past_k", "past_v"),
        _past("past_v", "past_k"),
    ),
    (
        value("y", "f32|u8", "B L H", scale="y_scale"),
        value("present_k", "f32", "B G T D", optional=True),
        value("present_v", "f32", "B G T D", optional=True),
    ),
    (
        integer("heads", 1, 65535),
        integer("kv_heads", 1, 65535, optional=True),
        scale("scale"),
        flag("causal"),
        *quantizer("score"),
        *quantizer("probability"),
        *quantizer("y"),
    ),
    derive=sizes_of_attention,
    checks=(broadcast_bias,),
)
