"""Shapes that an operator's attributes make."""

from __future__ import annotations

from math import prod

from openwork.engine.operators.contract import Form, Problem
from openwork.engine.shapes import Dim, Letters, Partial

LARGEST_SIZE = 2**31 - 1
_KEPT, _REST = 0, -1


def reshapes(form: Form, letters: Letters) -> Problem | None:
    """The shape that `shape` makes of x: 0 keeps the dimension at its place, -1 takes what is left."""
    target = form.attributes["shape"]
    if list(target).count(_REST) > 1:
        return Problem("shape", "of one -1 at most", f"{list(target)}")
    given = next((operand.shape for operand in form.given("x")), None)
    if given is None:
        letters.lead(tuple(size if size > 0 else None for size in target))
        return None
    beyond = [place for place, size in enumerate(target) if size == _KEPT and place >= len(given)]
    if beyond:
        return Problem("shape", f"without a 0 behind the {len(given)} dimensions of x", f"{list(target)}")
    kept = [place for place, size in enumerate(target) if size == _KEPT]
    left = [size for place, size in enumerate(given) if place not in kept]
    fixed = prod(size for size in target if size > 0)
    rest = _rest(left, fixed)
    if isinstance(rest, int) and (rest < 1 if _REST in target else rest != 1):
        return Problem("shape", f"of as many elements as x, {list(given)}", f"{list(target)}")
    sizes = {_REST: rest}
    letters.lead(
        tuple(given[place] if size == _KEPT else sizes.get(size, size) for place, size in enumerate(target))
    )
    return None


def _rest(left: list[Dim | None], fixed: int) -> Dim | None:
    """How often `fixed` goes into the dimensions that are left: 0 where not wholly, None where unknown."""
    known = prod(size for size in left if isinstance(size, int))
    others = [size for size in left if not isinstance(size, int)]
    if not others:
        return known // fixed if known % fixed == 0 else 0
    return others[0] if len(others) == 1 and known == fixed else None


def cuts(form: Form, letters: Letters) -> Problem | None:
    """The elements from `begin` to `end` along an axis; of a free one a run says whether it is as long."""
    given = next((operand.shape for operand in form.given("x")), None)
    axis, begin, end = (form.attributes[name] for name in ("axis", "begin", "end"))
    if begin >= end:
        return Problem("begin", f"below 'end', {end}", f"{begin}")
    if given is None:
        return None
    if axis >= len(given):
        return Problem("axis", f"below the number of dimensions, {len(given)}", f"{axis}")
    size = given[axis]
    if isinstance(size, int) and end > size:
        return Problem("end", f"at most the size of the axis, {size}", f"{end}")
    made: Partial = (*given[:axis], end - begin, *given[axis + 1 :])
    letters.lead(made)
    return None
