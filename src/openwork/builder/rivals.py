"""Which packed forms are worth timing for a layer: those whose expected work is near the best."""

from __future__ import annotations

from collections.abc import Mapping

from openwork.runtime.packing import for_few_rows

RIVAL = 1.35
"""What takes this much more work than the best, dense among them, has not turned out the fastest yet."""

MOST_TIMED = 4
"""Forms timed for one number of rows at most, besides dense and those for few rows."""

FEW_ROWS = 32
"""Up to this many rows the bytes of the weights can be the limit, and forms with compressed indices are
timed."""

VECTOR_ROWS = 16
"""Forms with rows in the lanes are timed from this many rows on, which fill a vector."""


def rivals(work: Mapping[str, float], rows: int) -> tuple[str, ...]:
    """The forms to time against dense at a number of rows, least work first.

    work : expected work of each sparse form for each row, the dense one taking 1.
    """
    suited = {form: value for form, value in work.items() if _suits(form, rows)}
    plain = sorted((form for form in suited if not for_few_rows(form)), key=suited.__getitem__)
    best = min([1.0, *(suited[form] for form in plain)])
    near = [form for form in plain if suited[form] <= RIVAL * best]
    return (*near[:MOST_TIMED], *(form for form in suited if for_few_rows(form) and suited[form] <= RIVAL))


def hopeful(work: Mapping[str, float]) -> tuple[str, ...]:
    """The forms that may beat dense at some number of rows."""
    return tuple(form for form, value in work.items() if value <= RIVAL)


def _suits(form: str, rows: int) -> bool:
    if for_few_rows(form):
        return rows <= FEW_ROWS
    return rows >= VECTOR_ROWS or not form.startswith("blocks")
