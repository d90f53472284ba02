"""How far each quantized layer is from its float self, measured on data, the worst first."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from openwork.support.files import write_atomic

Order = Literal["alone", "accumulated"]

CHUNK = 1 << 20
"""Elements that are compared at a time in float64."""


@dataclass(frozen=True)
class Error:
    """Quantized numbers q against float ones x, `values` of them: the sums of x^2, (q - x)^2, x q and q^2."""

    signal: float = 0.0
    noise: float = 0.0
    cross: float = 0.0
    energy: float = 0.0
    values: int = 0

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, 10 log10(sum x^2 / sum (q - x)^2), in dB; infinite where q is x."""
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """sum x q / sqrt(sum x^2 sum q^2); 1 where both are zero."""
        if self.signal == 0.0 or self.energy == 0.0:
            return 1.0 if self.signal == self.energy else 0.0
        return max(-1.0, min(1.0, self.cross / math.sqrt(self.signal * self.energy)))

    def with_more(self, exact: Tensor, rounded: Tensor) -> Error:
        """The sums with two further tensors of one shape."""
        total = self
        for x, q in zip(
            *(torch.split(tensor.reshape(-1), CHUNK) for tensor in (exact, rounded)), strict=True
        ):
            total = total._plus(x.double(), q.double())
        return total

    def _plus(self, x: Tensor, q: Tensor) -> Error:
        signal, noise, cross, energy = torch.stack(
            [x.dot(x), (q - x).dot(q - x), x.dot(q), q.dot(q)]
        ).tolist()
        return Error(
            self.signal + signal, self.noise + noise, self.cross + cross, self.energy + energy,
            self.values + x.numel(),
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Signal-to-noise, null where it is not finite, and cosine."""
        return {"snr_db": self.snr if math.isfinite(self.snr) else None, "cosine": self.cosine}


@dataclass(frozen=True)
class LayerError:
    """The error of one layer's output.

    alone: with only this layer quantized, on the float model's activations. accumulated: with the whole model
    quantized, from a sample of the elements where there are many; None if it was not measured.
    """

    name: str
    kind: str
    alone: Error
    accumulated: Error | None = None


@dataclass(frozen=True)
class ErrorReport:
    """The errors of all layers, in the model's order, and of the model's own output.

    batches: how many were measured on. unreached: layers that no batch ran.
    """

    layers: tuple[LayerError, ...]
    output: Error | None
    batches: int
    unreached: tuple[str, ...] = field(default=())

    def worst(self, by: Order = "alone") -> tuple[LayerError, ...]:
        """The layers by falling error, that is rising signal-to-noise."""
        return tuple(sorted(self.layers, key=lambda layer: _error(layer, by).snr))

    def table(self, by: Order = "alone", most: int | None = None) -> str:
        """The layers as aligned lines of text, the worst first, at most `most` of them."""
        header = ("Layer", "Kind", "alone dB", "cosine", "accumulated dB", "cosine")
        rows = [header, *(_row(layer) for layer in self.worst(by)[:most])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [_aligned(row, widths) for row in rows]
        return "\n".join(line.rstrip() for line in (*lines, *self._notes()))

    def _notes(self) -> list[str]:
        notes = []
        if self.output is not None:
            notes.append(f"The model's output: {_db(self.output)} dB, cosine {self.output.cosine:.6f}.")
        if self.unreached:
            notes.append(f"No batch reached: {', '.join(self.unreached)}.")
        return notes

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, the worst layer first."""
        return {
            "batches": self.batches,
            "output": self.output.to_json() if self.output else None,
            "unreached": list(self.unreached),
            "layers": [
                {
                    "name": layer.name,
                    "kind": layer.kind,
                    "alone": layer.alone.to_json(),
                    "accumulated": layer.accumulated.to_json() if layer.accumulated else None,
                }
                for layer in self.worst()
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write the report as JSON; the file appears whole or not at all."""
        write_atomic(path, [json.dumps(self.to_json(), indent=2).encode() + b"\n"])

    def plot(self, path: str | Path, most: int = 60) -> None:
        """Draw the signal-to-noise of the `most` worst layers as PNG; needs matplotlib."""
        # Imported here, so that reports need no matplotlib until one is drawn.
        from openwork.quantization.errors.plot import Bar, draw

        bars = [
            Bar(_title(layer), layer.alone.snr, layer.accumulated.snr if layer.accumulated else None)
            for layer in self.worst()[:most]
        ]
        draw(bars, self.output.snr if self.output else None, Path(path))


def _error(layer: LayerError, by: Order) -> Error:
    if by == "alone":
        return layer.alone
    if layer.accumulated is None:
        raise ValueError("The accumulated errors were not measured; measure with accumulated=True.")
    return layer.accumulated


def _title(layer: LayerError) -> str:
    return layer.name or "(the model)"


def _row(layer: LayerError) -> tuple[str, ...]:
    more = layer.accumulated
    return (
        _title(layer), layer.kind, _db(layer.alone), f"{layer.alone.cosine:.6f}",
        "-" if more is None else _db(more), "-" if more is None else f"{more.cosine:.6f}",
    )  # fmt: skip


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    """Names to the left, numbers to the right."""
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(cells))


def _db(error: Error) -> str:
    return "exact" if error.snr == math.inf else f"{error.snr:.1f}"
