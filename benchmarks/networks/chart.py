"""The speed-up over batches or sizes: than the faster peer, and of sparse over dense."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.networks.measure import Cell
from benchmarks.networks.plans import DENSE

INK, GREY, PANEL_INCHES = "#2b2f36", "#78828e", (6.2, 3.8)
MARKERS = "osD^vPX<>h*"
COLOURS = matplotlib.color_sequences["tab10"]
_PANELS: tuple[tuple[str, Callable[[Cell], float | None]], ...] = (
    ("times faster than the faster peer", lambda cell: cell.best),
    ("times faster than the own dense engine", lambda cell: cell.dense),
)


def draw(cells: list[Cell], machine: str, path: Path) -> None:
    """Write the chart as PNG: a row for each network and type, a line for each pattern.

    Raises ValueError where nothing was measured.
    """
    rows = list(dict.fromkeys((cell.network, cell.kind) for cell in cells if not cell.refusal))
    if not rows:
        raise ValueError("There is nothing to draw: no engine was built.")
    size = (PANEL_INCHES[0] * len(_PANELS), PANEL_INCHES[1] * len(rows))
    with pyplot.rc_context({"font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        figure, axes = pyplot.subplots(
            len(rows), len(_PANELS), figsize=size, layout="constrained", squeeze=False
        )
        for line, row in zip(axes, rows, strict=True):
            mine = [cell for cell in cells if (cell.network, cell.kind) == row and not cell.refusal]
            for axis, (name, value) in zip(line, _PANELS, strict=True):
                _panel(axis, mine, name, value)
                axis.set_title(f"{row[0]}, {row[1]}", loc="left")
        figure.supxlabel(machine, fontsize=7, color=GREY)
        temporary = path.with_name(f".{path.name}.tmp.png")
        figure.savefig(temporary, dpi=130)
        pyplot.close(figure)
    os.replace(temporary, path)


def _panel(axis: Axes, cells: list[Cell], name: str, value: Callable[[Cell], float | None]) -> None:
    sized = len({cell.size for cell in cells}) > 1
    places = list(dict.fromkeys(cell.size if sized else str(cell.batch) for cell in cells))
    for i, pattern in enumerate(dict.fromkeys(cell.pattern for cell in cells)):
        points = {
            places.index(cell.size if sized else str(cell.batch)): value(cell)
            for cell in cells
            if cell.pattern == pattern and value(cell) is not None
        }
        colour = "black" if pattern == DENSE else COLOURS[(i - 1) % len(COLOURS)]
        axis.plot(
            list(points), list(points.values()), color=colour, marker=MARKERS[i % len(MARKERS)], label=pattern
        )
    axis.axhline(1, color=GREY, linewidth=0.8)
    axis.set_xticks(range(len(places)), places)
    axis.set_xlabel("height x width" if sized else "batch")
    axis.set_ylabel(name)
    axis.grid(color="#e6e9ed", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(title="pattern", frameon=False, fontsize=8)
