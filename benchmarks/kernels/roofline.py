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

INK, GREY, SIZE_INCHES = "#2b2f36", "#78828e", (10.5, 5.6)
MARKERS = "osD^vPX<>h*"
COLOURS = matplotlib.color_sequences["tab10"]


def draw(run: Run, path: str | os.PathLike[str]) -> None:
    """Write the roofline of a run as PNG, a panel for each type."""
    kinds = [kind for kind in run.peaks if run.best(kind)]
    with pyplot.rc_context({"font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        size = (SIZE_INCHES[0], SIZE_INCHES[1] * len(kinds))
        figure, axes = pyplot.subplots(len(kinds), 1, figsize=size, layout="constrained", squeeze=False)
        for axis, kind in zip(axes.flat, kinds, strict=True):
            _panel(axis, run, kind)
        threads = "1 thread" if run.threads == 1 else f"{run.threads} threads"
        figure.supxlabel(f"{run.machine['cpu']}, {run.isa}, {threads}", fontsize=8, color=GREY)
        target = Path(path)
        temporary = target.with_name(f".{target.name}.tmp.png")
        figure.savefig(temporary, dpi=130)
        pyplot.close(figure)
    os.replace(temporary, target)


def _panel(axis: Axes, run: Run, kind: str) -> None:
    _limits(axis, run, kind)
    _roofs(axis, run, kind)
    for i, pattern in enumerate(run.patterns):
        mine = run.best(kind, pattern)
        if not mine:
            continue
        colour = "black" if pattern == DENSE else COLOURS[(i - 1) % len(COLOURS)]
        look: dict[str, Any] = {"s": 30, "linewidth": 0.4, "edgecolor": "white", "zorder": 3, "alpha": 0.9}
        x, y = [rate.intensity for rate in mine], [rate.gops for rate in mine]
        axis.scatter(x, y, color=colour, marker=MARKERS[i % len(MARKERS)], label=pattern, **look)
    axis.set_title(f"{kind}: each layer and pattern in its best form", loc="left")
    axis.set_xlabel("operations of the dense layer for each byte of x, packed weights and y")
    axis.set_ylabel("$10^9$ operations of the dense layer a second")
    axis.grid(color="#e6e9ed", which="major", linewidth=0.6, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(title="pattern", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _limits(axis: Axes, run: Run, kind: str) -> None:
    """Room for every layer, and for the ends of the memory's roofs."""
    rates, peak = run.best(kind), run.peaks[kind]
    x = [rate.intensity for rate in rates] + [peak / level.rate for level in run.levels]
    y = [rate.gops for rate in rates] + [peak / 1e9]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(min(x) / 4, max(x) * 1.6)
    axis.set_ylim(min(min(y) / 1.6, peak / 8e9), max(y) * 1.6)


def _roofs(axis: Axes, run: Run, kind: str) -> None:
    peak, (left, right) = run.peaks[kind] / 1e9, axis.get_xlim()
    ridge = peak / max(level.rate / 1e9 for level in run.levels)
    axis.plot([ridge, right], [peak, peak], color=INK, linewidth=1.2)
    note = f"dense dot product of registers: {peak:.0f}"
    axis.annotate(note, (ridge, peak), xytext=(2, 4), textcoords="offset points", fontsize=8)
    for level, style in zip(run.levels, ("-", "--", "-.", ":"), strict=False):
        rate = level.rate / 1e9
        ends = np.array([left, peak / rate])
        axis.plot(ends, rate * ends, color=GREY, linewidth=0.9, linestyle=style, zorder=1)
        _name_roof(axis, f"{level.name} {rate:.0f} GB/s", rate, peak)


def _name_roof(axis: Axes, text: str, rate: float, peak: float) -> None:
    """Along the roof, below its end."""
    at = 0.55 * peak / rate
    along: dict[str, Any] = {"rotation": float(np.degrees(np.arctan(rate))), "rotation_mode": "anchor"}
    along |= {"transform_rotates_text": True, "ha": "right", "va": "bottom", "clip_on": True}
    axis.text(at, 1.1 * rate * at, text, fontsize=8, color=GREY, **along)
