"""The rows of the operators on rows of stored tables, and on the vectors that they make."""

from __future__ import annotations

from openwork.engine.operators.attribute import Attribute, flag, integer, quantizer
from openwork.engine.operators.contract import Form, Operator, Problem, Slot
from openwork.engine.operators.shape_checks import LARGEST_SIZE
from openwork.engine.operators.slot_words import tensor, value
from openwork.engine.shapes import Letters, Partial

BAG_MODES = ("sum", "mean", "max")
_WINDOW = ("begin", "end")

_TABLE = (
    tensor("table", "f32|u8", "V H"),
    tensor("table_scale", "f32", "V", optional=True, needs=("table_zero_point",)),
    tensor("table_zero_point", "u8", "V", optional=True, needs=("table_scale",)),
)
"""A table of floats, or of integers with a scale and a zero point for each row."""


def _scaled_bytes(form: Form, _: Letters) -> Problem | None:
    """A table of integers has scales, one of floats none."""
    dtype = next((operand.dtype for operand in form.given("table")), None)
    scaled = form.has("table_scale")
    if dtype is None or scaled == (dtype == "u8"):
        return None
    return Problem(
        "table_scale",
        "given exactly where the table is u8",
        f"{'given' if scaled else 'absent'} with {dtype}",
    )


def _shape(form: Form, name: str) -> Partial | None:
    return next((operand.shape for operand in form.given(name)), None)


def _bags(form: Form, letters: Letters) -> Problem | None:
    """Bags of columns of ids [B, W], or of ids [T] and offsets [N]; weights lie as the ids do."""
    ids, weights = _shape(form, "ids"), _shape(form, "weights")
    if ids is None:
        return None
    rank, shape = (1, "[T] beside offsets") if form.has("offsets") else (2, "[B, W] without offsets")
    if len(ids) != rank:
        return Problem("ids", f"of shape {shape}", f"{list(ids)}")
    if weights is not None and (len(weights) != rank or not all(map(letters.equal, ids, weights))):
        return Problem("weights", f"of the shape of ids, {list(ids)}", f"{list(weights)}")
    return _of_offsets(form, letters) if rank == 1 else _of_columns(form, letters, ids)


def _of_offsets(form: Form, letters: Letters) -> Problem | None:
    given = [name for name in _WINDOW if name in form.attributes]
    if given:
        return Problem(given[0], "absent where there are offsets", "given")
    offsets = letters.size("N")
    if not form.attributes.get("include_last"):
        letters.bind("B", offsets)
    elif isinstance(offsets, int):
        if offsets < 2:
            return Problem(
                "offsets", "of at least two elements, since the last one ends the last bag", f"[{offsets}]"
            )
        letters.bind("B", offsets - 1)
    return None


def _of_columns(form: Form, letters: Letters, ids: Partial) -> Problem | None:
    letters.bind("B", ids[0])
    width = ids[1]
    if width is None:
        return None
    if not isinstance(width, int):
        return Problem("ids", "of a fixed second dimension", f"{list(ids)}")
    begin, end = form.attributes.get("begin", 0), form.attributes.get("end", width)
    if begin >= end or end > width:
        return Problem("begin", f"below 'end', which is at most {width}", f"{begin} with an 'end' of {end}")
    return None


def _weighted_sum(form: Form, _: Letters) -> Problem | None:
    """A weight for each id goes with sums alone."""
    mode = form.attributes["mode"]
    if form.has("weights") and mode != "sum":
        return Problem("weights", "absent but where the mode is sum", f"given with {mode}")
    return None


def _pairs(form: Form, letters: Letters) -> Problem | None:
    """Vectors [B, D] or [B, F, D], of which all pairs are multiplied: [B, D + F (F - 1) / 2]."""
    vectors: int | None = 0
    for operand in form.given("x"):
        shape = operand.shape
        if shape is None:
            vectors = None
            continue
        if len(shape) not in (2, 3) or not (letters.bind("B", shape[0]) and letters.bind("D", shape[-1])):
            expected = (
                f"[B, D] or [B, F, D] of the batch {letters.size('B')} and the width {letters.size('D')}"
            )
            return Problem("x", expected, f"{list(shape)}")
        each = 1 if len(shape) == 2 else shape[1]
        if isinstance(each, str):
            return Problem("x", "of a fixed number of vectors", f"{list(shape)}")
        vectors = None if vectors is None or each is None else vectors + each
    width = letters.size("D")
    if isinstance(width, str):
        return Problem("x", "of a fixed width", f"{width}")
    if width is not None and vectors is not None:
        letters.bind("N", width + vectors * (vectors - 1) // 2)
    return None


EMBEDDING_BAG = Operator(
    "EmbeddingBag",
    (
        value("ids", "i64", "*", indexes="table"),
        value("offsets", "i64", "N", optional=True, cuts="ids"),
        value("weights", "f32", "*", optional=True),
        *_TABLE,
    ),
    (value("y", "f32", "B H"),),
    (
        Attribute("mode", "string", choices=BAG_MODES),
        integer("begin", 0, LARGEST_SIZE, optional=True),
        integer("end", 1, LARGEST_SIZE, optional=True),
        flag("include_last", needs=("offsets",)),
    ),
    derive=_bags,
    checks=(_scaled_bytes, _weighted_sum),
)
GATHER = Operator(
    "Gather",
    (value("ids", "i64", "...", indexes="table"), *_TABLE),
    (value("y", "f32", "... H"),),
    checks=(_scaled_bytes,),
)
INTERACTION = Operator(
    "Interaction",
    (Slot("x", ("f32",), ("*",), variadic=True),),
    (value("y", "f32|u8", "B N", scale="y_scale"),),
    quantizer("y"),
    derive=_pairs,
)
TABLE_ROWS = (EMBEDDING_BAG, GATHER, INTERACTION)
