"""One picture with the samples of all engines side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .sampling import Request

COLUMNS = 8
DOTS = 120


def _sheet(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures [B, 3, H, W] in [-1, 1] as rows of COLUMNS, [rows H, COLUMNS W, 3] in [0, 1]."""
    count, _, height, width = pictures.shape
    rows = pictures.transpose(0, 2, 3, 1).reshape(count // COLUMNS, COLUMNS, height, width, 3)
    sheet = rows.transpose(0, 2, 1, 3, 4).reshape(count // COLUMNS * height, COLUMNS * width, 3)
    return np.clip((sheet + 1) / 2, 0, 1).astype(np.float32)


def draw(samples: Mapping[str, NDArray[np.float32]], request: Request, path: Path) -> None:
    """Write the first rows of each engine's pictures, under its name, to a PNG file."""
    figure = Figure(figsize=(3.2 * len(samples), 2.6), dpi=DOTS)
    shown = min(map(len, samples.values())) // COLUMNS * COLUMNS
    for place, (name, pictures) in enumerate(samples.items(), start=1):
        axes = figure.add_subplot(1, len(samples), place)
        axes.imshow(_sheet(pictures[:shown]), interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    figure.suptitle(f"“{request.captions[0]}”, “{request.captions[1]}”, …", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
