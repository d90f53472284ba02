"""The roofline: what each layer reaches at its operational intensity, under the measured roofs.

Williams, Waterman and Patterson 2009, "Roofline". Operations are those of the dense layer, so a sparse
pattern may stand above the roof of the dense dot product: that is what it is for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from .results import DENSE, Run

INK, GREY, SIZE_INCHES = "#2b2f36", "#8a94a0", (11.0, 6.5)
MARKERS = "osD^vPX<>h*"


def draw(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the roofline of a run as PNG, a panel for each type."""
    kinds = [kind for kind in run.peaks if run.best(kind)]
    with pyplot.rc_context({"font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        size = (SIZE_INCHES[0], SIZE_INCHES[1] * len(kinds))
        figure, axes = pyplot.subplots(len(kinds), 1, figsize=size, layout="constrained", squeeze=False)
        for axis, kind in zip(axes.flat, kinds, strict=True):
            _panel(axis, run, kind)
        figure.supxlabel(f"{run.machine['cpu']}, {run.isa}, {run.threads} thread(s)", fontsize=8, color=GREY)
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp.png")
        figure.savefig(temporary, dpi=130)
        pyplot.close(figure)
    os.replace(temporary, target)


def _panel(axis: Axes, run: Run, kind: str) -> None:
    rates = run.best(kind)
    intensity = [rate.intensity for rate in rates]
    low, high = min(intensity) / 2, max(intensity) * 2
    _roofs(axis, run, kind, (low, high))
    patterns = list(dict.fromkeys(rate.pattern for rate in rates))
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.9, max(len(patterns) - 1, 1)))
    for i, pattern in enumerate(patterns):
        mine = run.best(kind, pattern)
        colour = "black" if pattern == DENSE else colours[i - 1]
        x, y = [r.intensity for r in mine], [r.gops for r in mine]
        look: dict[str, Any] = {"s": 34, "linewidth": 0.5, "edgecolor": "white", "zorder": 3}
        axis.scatter(x, y, color=colour, marker=MARKERS[i % len(MARKERS)], label=pattern, **look)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    rate = [r.gops for r in rates]
    axis.set_ylim(min(rate) / 1.6, max(run.peaks[kind] / 1e9, *rate) * 1.6)
    axis.set_title(f"{kind}: each layer and pattern, its best form", loc="left")
    axis.set_xlabel("operations of the dense layer for each byte of x, packed weights and y")
    axis.set_ylabel("10^9 operations of the dense layer a second")
    axis.grid(color="#e6e9ed", which="both", linewidth=0.5, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(title="pattern", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _roofs(axis: Axes, run: Run, kind: str, ends: tuple[float, float]) -> None:
    peak = run.peaks[kind] / 1e9
    x = np.geomspace(*ends, 200)
    axis.axhline(peak, color=INK, linewidth=1.2, zorder=2)
    note = f"dense dot product on registers: {peak:.0f}"
    axis.annotate(note, (ends[1], peak), xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=8)
    for level, style in zip(run.levels, ("-", "--", "-.", ":"), strict=False):
        rate = level.rate / 1e9
        axis.plot(x, np.minimum(rate * x, 1e3 * peak), color=GREY, linewidth=0.9, linestyle=style, zorder=1)
        _name_roof(axis, f"{level.name} {rate:.0f} GB/s", rate, ends[0])


def _name_roof(axis: Axes, text: str, rate: float, left: float) -> None:
    at = left * 1.1
    axis.annotate(
        text, (at, rate * at), xytext=(2, 3), textcoords="offset points", rotation=0, fontsize=8, color=GREY,
        annotation_clip=True,
    )  # fmt: skip
