"""Which packed forms are worth timing for a layer: those whose expected work is near the best."""

from __future__ import annotations

from collections.abc import Mapping

from openwork.backends.cpu.packing import for_few_rows, on_tiles, rows_at_once
from openwork.engine.problem import RIVAL

LANES_RIVAL = 2.0
"""The same among forms with rows in the lanes: on vectors of 64 bytes narrow blocks are limited by their
loads, which the work does not count (blocks1 took 3 times its work there, blocks4 1.25 times)."""

MOST_WINDOWS, MOST_LANES, MOST_TILES = 4, 2, 2
"""Forms timed for one number of rows at most, with channels and with rows in the lanes, and of a matrix unit;
one less of the first where there are any of the second."""

FEW_ROWS, FEW_ROWS_OF_TILES = 32, 128
"""Up to this many rows the bytes of the weights can be the limit, and forms with compressed indices are
timed; a matrix unit reaches that limit with more rows."""


def rivals(work: Mapping[str, float], rows: int) -> tuple[str, ...]:
    """The forms to time against dense at a number of rows: of each kind those with the least work.

    The best that has channels in the lanes is always among them: what forms with rows in the lanes spend
    beside their products differs between machines, and so does what a matrix unit gains.
    work : expected work of each sparse form for each row, the dense one taking 1.
    """
    at = {form: _at(form, value, rows) for form, value in work.items()}
    usable = sorted((form for form in at if at[form] <= RIVAL), key=at.__getitem__)
    packed = [
        form
        for form in usable
        if for_few_rows(form) and rows <= (FEW_ROWS_OF_TILES if on_tiles(form) else FEW_ROWS)
    ]
    lanes = [form for form in usable if rows_at_once(form) > 1]
    tiles = [form for form in usable if on_tiles(form) and not for_few_rows(form)]
    windows = [form for form in usable if form not in (*lanes, *tiles) and not for_few_rows(form)]
    best = min([1.0, *(at[form] for form in windows)])
    near_lanes = _near_lanes(lanes, at, best)
    near = [form for form in windows if at[form] <= RIVAL * best][: MOST_WINDOWS - bool(near_lanes)]
    near_tiles = [form for form in tiles if at[form] <= RIVAL * at[tiles[0]]][:MOST_TILES]
    return (*near_lanes, *near, *near_tiles, *packed)


def _near_lanes(forms: list[str], at: Mapping[str, float], best: float) -> list[str]:
    """Of the forms with rows in the lanes those worth timing, where the best of them is a rival.

    Of equals the widest come first.
    """
    ordered = sorted(forms, key=lambda form: (at[form], -forms.index(form)))
    if not ordered or at[ordered[0]] > RIVAL * best:
        return []
    return [form for form in ordered if at[form] <= LANES_RIVAL * at[ordered[0]]][:MOST_LANES]


def _at(form: str, work: float, rows: int) -> float:
    together = rows_at_once(form)
    return work * (-(-rows // together) * together) / rows
