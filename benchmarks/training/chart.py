"""Grids as points with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from .grid import Grid

REFERENCE, INK = "#cfd6dd", "#2b2f36"
SHADES = ("#f2b36f", "#e07b39", "#b3471b", "#7a2e12", "#7f9bb3", "#4f6f8c")
_WIDTH_INCHES, _HEIGHT_INCHES = 9.0, 3.6
_HEADROOM = 0.15
_TITLE_CHARACTERS = 95
_BAND = 0.7


def draw(grids: Sequence[Grid], footer: str, target: Path) -> None:
    """Write one chart for each grid, below each other, as PNG to `target`. footer: what it ran on."""
    with pyplot.rc_context({"font.size": 10, "text.color": INK, "axes.labelcolor": INK}):
        figure, axes = pyplot.subplots(
            len(grids),
            1,
            figsize=(_WIDTH_INCHES, _HEIGHT_INCHES * len(grids)),
            layout="constrained",
            squeeze=False,
        )
        for axis, grid in zip(axes.flat, grids, strict=True):
            _points(axis, grid)
        figure.supxlabel(footer, fontsize=7, color="#6b7480")
        temporary = target.with_suffix(".tmp.png")
        figure.savefig(temporary, dpi=140)
        pyplot.close(figure)
    temporary.replace(target)


def _points(axis: Axes, grid: Grid) -> None:
    """One point for each cell: bars would start at zero, and the figures lie close together."""
    shades = dict(zip((row for row in grid.rows if row != grid.reference), cycle(SHADES), strict=False))
    for number, row in enumerate(grid.rows):
        offset = (number - (len(grid.rows) - 1) / 2) * _BAND / len(grid.rows)
        shown = [(at, grid.cells.get((row, name))) for at, name in enumerate(grid.columns)]
        points = [(at + offset, found) for at, found in shown if found is not None]
        axis.errorbar(
            [at for at, _ in points],
            [100 * found.mean for _, found in points],
            [100 * found.deviation for _, found in points],
            fmt="o",
            markersize=9,
            markeredgecolor=INK,
            color=shades.get(row, REFERENCE),
            ecolor=INK,
            elinewidth=0.9,
            label=row,
        )
    axis.set_xticks(range(len(grid.columns)), grid.columns)
    axis.set_xlim(-0.5, len(grid.columns) - 0.5)
    axis.set_ylim(*_limits(grid))
    axis.set_title(fill(grid.title, _TITLE_CHARACTERS), loc="left", fontsize=10)
    axis.set_ylabel("%")
    axis.grid(axis="y", color="#e6e9ed", zorder=0)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.spines[["top", "right"]].set_visible(False)


def _limits(grid: Grid) -> tuple[float, float]:
    """Percent at the axis's ends: what is drawn, with a little room, since the figures lie close together."""
    ends = [100 * (x.mean + sign * x.deviation) for x in grid.cells.values() for sign in (-1, 1)] or [
        0.0,
        100.0,
    ]
    room = max(0.5, _HEADROOM * (max(ends) - min(ends)))
    return max(0.0, min(ends) - room), min(100.0, max(ends)) + room
