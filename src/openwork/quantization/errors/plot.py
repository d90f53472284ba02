"""The picture of an error report: one bar for each layer, the worst on top."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from openwork.support.files import write_atomic

BAR, MARK, INK = "#9aa5b1", "#b3471b", "#2b2f36"
INCHES_PER_LAYER = 0.22
EXACT = 120.0
"""Where an exact layer is drawn, in dB."""


@dataclass(frozen=True)
class Bar:
    """One layer of the chart: signal-to-noise in dB, alone and with the whole model quantized if measured."""

    title: str
    alone: float
    accumulated: float | None


def draw(bars: Sequence[Bar], output: float | None, path: Path) -> None:
    """Write the chart of the layers, first on top, as PNG; raises ValueError if there is none.

    output: signal-to-noise of the model's output in dB, if it was measured.
    """
    if not bars:
        raise ValueError("An error report without layers has nothing to draw.")
    figure = Figure(figsize=(9.0, 1.6 + INCHES_PER_LAYER * len(bars)), layout="constrained")
    axis = figure.add_subplot()
    places = range(len(bars))
    axis.barh(places, [_height(bar.alone) for bar in bars], color=BAR, label="this layer alone")
    marked = [(i, _height(bar.accumulated)) for i, bar in enumerate(bars) if bar.accumulated is not None]
    if marked:
        axis.scatter(
            [height for _, height in marked], [i for i, _ in marked], color=MARK, s=18, zorder=3,
            label="the whole model quantized",
        )  # fmt: skip
    if output is not None:
        axis.axvline(_height(output), color=INK, linewidth=0.8, linestyle=":", label="the model's output")
    axis.set_yticks(places, [bar.title for bar in bars], fontsize=7.5)
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.set_xlabel("signal-to-noise of the layer's output, dB; higher is better", color=INK)
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    write_atomic(path, [buffer.getvalue()])


def _height(decibels: float) -> float:
    return min(decibels, EXACT) if math.isfinite(decibels) else math.copysign(EXACT, decibels)
