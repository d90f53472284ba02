"""A picture of a sensitivity: one row a layer, one colour a pattern."""

from __future__ import annotations

import math
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from openwork.sparsity.allocation.sensitivity import Sensitivity
from openwork.support.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW_INCHES = 0.22
_GREY = "#d8d8d8"


def plot_sensitivity(sensitivity: Sensitivity, path: str | os.PathLike[str]) -> None:
    """Draw the increase of the loss of each layer and pattern into the file `path`.

    The most sensitive layer stands on top; infinite losses are drawn at the right edge as arrows. path: its
    ending says the format (.png, .svg, .pdf). Raises ValueError if nothing was measured or the ending names
    no format, and ModuleNotFoundError, saying what to install, without matplotlib.
    """
    if not sensitivity.losses:
        raise ValueError("The sensitivity holds no measured layer, so there is nothing to draw.")
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Drawing a sensitivity needs matplotlib; install it with `pip install openwork[bench]`.",
            name="matplotlib",
        ) from error
    layers = sorted(sensitivity.losses, key=lambda layer: _worst(sensitivity, layer))
    figure = Figure(figsize=(8.0, 1.4 + _ROW_INCHES * len(layers)), layout="constrained")
    _draw(figure.add_subplot(), sensitivity, layers)
    picture = BytesIO()
    kind = Path(path).suffix.lstrip(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"{path} ends in no format of pictures; use .png, .svg or .pdf.")
    figure.savefig(picture, format=kind, dpi=150)
    write_atomic(path, [picture.getvalue()])


def _worst(sensitivity: Sensitivity, layer: str) -> float:
    return max(sensitivity.increase(layer, pattern) for pattern in sensitivity.losses[layer])


def _draw(axes: Axes, sensitivity: Sensitivity, layers: list[str]) -> None:
    edge = max(
        (v for layer in layers for v in _increases(sensitivity, layer) if math.isfinite(v)), default=1.0
    )
    for pattern in sensitivity.patterns:
        rows = [row for row, layer in enumerate(layers) if pattern in sensitivity.losses[layer]]
        values = [sensitivity.increase(layers[row], pattern) for row in rows]
        points = axes.scatter([min(value, edge) for value in values], rows, s=22, label=pattern, zorder=3)
        lost = [row for row, value in zip(rows, values, strict=True) if math.isinf(value)]
        axes.scatter([edge] * len(lost), lost, s=70, marker=">", color=points.get_facecolor()[0], zorder=2)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(layers)), layers, fontsize=7)
    axes.grid(axis="y", color=_GREY, linewidth=0.5)
    axes.set_xlabel(f"increase of the loss over {sensitivity.dense:.4g} (dense)")
    axes.set_title(f"One layer pruned at a time, by {sensitivity.method}", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def _increases(sensitivity: Sensitivity, layer: str) -> list[float]:
    return [sensitivity.increase(layer, pattern) for pattern in sensitivity.losses[layer]]
