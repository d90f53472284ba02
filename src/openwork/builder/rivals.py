"""Which packed forms are worth timing for a layer: those whose expected work is near the best."""

from __future__ import annotations

from collections.abc import Mapping

from openwork.runtime.packing import for_few_rows, rows_in_lanes

RIVAL = 1.35
"""What is expected to take this many times as much as the best, dense among them, is not timed."""

MOST_TIMED = 4
"""Forms timed for one number of rows at most, besides dense and those for few rows."""

FEW_ROWS = 32
"""Up to this many rows the bytes of the weights can be the limit, and forms with compressed indices are
timed."""

LANES = 16
"""Rows that forms with rows in the lanes make together, whether there are as many or not."""


def rivals(work: Mapping[str, float], rows: int) -> tuple[str, ...]:
    """The forms to time against dense at a number of rows, least work first.

    The best that has channels in the lanes is among them, however well rows in the lanes look: what the
    latter spend beside their products differs between machines.
    work : expected work of each sparse form for each row, the dense one taking 1.
    """
    plain = {form: _at(form, value, rows) for form, value in work.items() if not for_few_rows(form)}
    ordered = sorted((form for form in plain if plain[form] <= RIVAL), key=plain.__getitem__)
    limit = RIVAL * min([1.0, *plain.values()])
    near = [form for form in ordered if plain[form] <= limit][:MOST_TIMED]
    windows = [form for form in ordered if not rows_in_lanes(form)][:1]
    if not set(windows) <= set(near):
        near = [*near[: MOST_TIMED - 1], *windows]
    packed = [form for form, value in work.items() if for_few_rows(form) and value <= RIVAL]
    return (*near, *(packed if rows <= FEW_ROWS else ()))


def hopeful(work: Mapping[str, float]) -> tuple[str, ...]:
    """The forms that may beat dense at some number of rows."""
    return tuple(form for form, value in work.items() if value <= RIVAL)


def _at(form: str, work: float, rows: int) -> float:
    padded = -(-rows // LANES) * LANES
    return work * padded / rows if rows_in_lanes(form) else work
