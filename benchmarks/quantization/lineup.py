"""The rows and columns of the tables."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.training.grid import Grid
from openwork.quantization import QuantizationOptions
from openwork.quantization.observers.observer import ObserverKind

FLOAT, TRAINED = "FP32", "QAT"
OBSERVERS: dict[str, ObserverKind] = {
    "PTQ max": "max",
    "PTQ percentile": "percentile",
    "PTQ entropy": "entropy",
    "PTQ mse": "mse",
}
SEARCHED = "PTQ output"
ROWS = (FLOAT, *OBSERVERS, TRAINED)
SEARCH_ROWS = (FLOAT, *OBSERVERS, SEARCHED, TRAINED)
DENSE, SPARSE = "dense", "2:4"
COLUMNS = (DENSE, SPARSE)
TRAINED_FROM = "PTQ max"
"""The calibration that quantization-aware training starts from."""


def options(row: str) -> QuantizationOptions:
    """How a row chooses its scales: symmetric s8 at TensorRT's places, residual additions included.

    Except for SEARCHED, which is what this engine runs: u8 inputs of layers, ranges by the layers' outputs.
    """
    if row == SEARCHED:
        return QuantizationOptions(style="openwork", observer="output")
    observer = OBSERVERS[TRAINED_FROM if row == TRAINED else row]
    return QuantizationOptions(style="tensorrt", observer=observer)


def complete(grid: Grid, wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether the grid has a figure for each of the `wanted` cells."""
    return all(cell in grid.cells for cell in wanted)
