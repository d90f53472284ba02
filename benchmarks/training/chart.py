"""Grids as bars with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from .grid import Grid

REFERENCE, INK = "#cfd6dd", "#2b2f36"
SHADES = ("#f2b36f", "#e07b39", "#b3471b", "#7a2e12", "#7f9bb3", "#4f6f8c")
_WIDTH_INCHES, _HEIGHT_INCHES = 9.0, 3.6
_HEADROOM = 0.15


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
            _bars(axis, grid)
        figure.supxlabel(footer, fontsize=7, color="#6b7480")
        temporary = target.with_suffix(".tmp.png")
        figure.savefig(temporary, dpi=140)
        pyplot.close(figure)
    temporary.replace(target)


def _bars(axis: Axes, grid: Grid) -> None:
    width = 0.85 / len(grid.rows)
    shades = iter(SHADES * len(grid.rows))
    for number, row in enumerate(grid.rows):
        shown = [
            (at, grid.cells[row, name]) for at, name in enumerate(grid.columns) if (row, name) in grid.cells
        ]
        axis.bar(
            [at + (number - (len(grid.rows) - 1) / 2) * width for at, _ in shown],
            [100 * found.mean for _, found in shown],
            width,
            yerr=[100 * found.deviation for _, found in shown],
            color=REFERENCE if row == grid.reference else next(shades),
            error_kw={"elinewidth": 0.9, "ecolor": INK, "capsize": 2},
            label=row,
        )
    axis.set_xticks(range(len(grid.columns)), grid.columns)
    axis.set_ylim(*_limits(grid))
    axis.set_title(grid.title, loc="left", fontsize=10.5)
    axis.set_ylabel("%")
    axis.legend(fontsize=8, frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.spines[["top", "right"]].set_visible(False)


def _limits(grid: Grid) -> tuple[float, float]:
    """Percent at the axis's ends: what is drawn, with a little room, since the figures lie close together."""
    ends = [100 * (x.mean + sign * x.deviation) for x in grid.cells.values() for sign in (-1, 1)] or [
        0.0,
        100.0,
    ]
    room = max(0.5, _HEADROOM * (max(ends) - min(ends)))
    return max(0.0, min(ends) - room), max(ends) + room
