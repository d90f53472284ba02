"""What was predicted, as values, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from openwork.engine.problem import DENSE
from openwork.prediction.layers import ProductLayer
from openwork.prediction.machines import Machine

_KEPT = 1.005
"""A gain below it is none: dense needs no pattern."""


@dataclass(frozen=True)
class Predicted:
    """The fastest form, by its name in native/kernels/table.inc, and its seconds."""

    form: str
    seconds: float


@dataclass(frozen=True)
class LayerPrediction:
    """A layer's prediction.

    dense : None where the cost model does not know the layer. patterns : by pattern. reasons : of the
    patterns that the layer cannot hold, or that nothing is predicted of.
    """

    layer: ProductLayer
    dense: Predicted | None
    patterns: dict[str, Predicted]
    reasons: dict[str, str]

    def gain(self, pattern: str) -> float:
        """Dense time over the pattern's; 1 where the layer stays dense."""
        found = self.patterns.get(pattern)
        return 1.0 if found is None or self.dense is None else self.dense.seconds / found.seconds

    @property
    def best(self) -> str:
        """The pattern that gains most, or "dense"; of equals the one that was given first."""
        best = max(self.patterns, key=self.gain, default=DENSE)
        return best if self.gain(best) > _KEPT else DENSE


@dataclass(frozen=True)
class Prediction:
    """What patterns would gain on a machine: predicted, not measured.

    Totals are of products alone: what else a model does takes as long with every pattern.
    """

    machine: Machine
    threads: int
    patterns: tuple[str, ...]
    layers: tuple[LayerPrediction, ...]
    unsized: tuple[str, ...] = ()
    """Sentences on sizes that could not be found, which count as 1."""

    def total(self, pattern: str = DENSE) -> float:
        """Seconds of all products with a pattern, each layer that cannot hold it dense."""
        known = [layer for layer in self.layers if layer.dense is not None]
        return sum((layer.patterns.get(pattern) or layer.dense).seconds for layer in known if layer.dense)

    def gain(self, pattern: str) -> float:
        """Dense time over the pattern's, of all products."""
        total = self.total(pattern)
        return self.total() / total if total else 1.0

    @property
    def best(self) -> str:
        """The pattern that gains most over all products, or "dense"."""
        best = max(self.patterns, key=self.gain)
        return best if self.gain(best) > _KEPT else DENSE

    def table(self) -> str:
        """One row per kind of layer, with the gain and the form of each pattern, and the totals."""
        counts = Counter(_kind(layer) for layer in self.layers)
        kinds = {_kind(layer): layer for layer in self.layers}
        rows = [("layers", "rows", "n x k", "dense us", *self.patterns, "best")]
        rows += [_row(layer, counts[kind], self.patterns) for kind, layer in kinds.items()]
        rows.append(self._total_row())
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), *self.notes()])

    def _total_row(self) -> tuple[str, ...]:
        priced = sum(layer.dense is not None for layer in self.layers)
        name = "all products" if priced == len(self.layers) else f"{priced} of {len(self.layers)} products"
        if not priced:
            return (name, "", "", "-", *("-" for _ in self.patterns), "-")
        gains = (f"{self.gain(pattern):.2f}x" for pattern in self.patterns)
        return (name, "", "", f"{1e6 * self.total():.1f}", *gains, self.best)

    def notes(self) -> list[str]:
        """What the numbers are, and which layers they leave out."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        machine = self.machine
        reasons: dict[str, list[str]] = {}
        for layer in self.layers:
            for reason in dict.fromkeys(layer.reasons.values()):
                reasons.setdefault(reason, []).append(layer.layer.name)
        return [
            f"Predicted for {machine.name} ({machine.cpu}), {threads}, INT8: nothing here was measured.",
            machine.source,
            *(f"Left dense, {_counted(names)}: {why}" for why, names in reasons.items()),
            *self.unsized,
        ]

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON document."""
        return {
            "predicted": True,
            "machine": {
                name: value
                for name, value in asdict(self.machine).items()
                if name in ("name", "cpu", "basis", "source", "sources", "error", "gains")
            },
            "threads": self.threads,
            "layers": [_layer_json(layer, self.patterns) for layer in self.layers],
            "products": {
                "dense_seconds": self.total(),
                "seconds": {pattern: self.total(pattern) for pattern in self.patterns},
                "gains": {pattern: self.gain(pattern) for pattern in self.patterns},
            },
            "best": self.best,
            "unsized": list(self.unsized),
        }


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} layers ({names[0]} ...)"


def _kind(layer: LayerPrediction) -> tuple[str, int]:
    return str(layer.layer.sizes), layer.layer.rows


def _row(layer: LayerPrediction, count: int, patterns: Sequence[str]) -> tuple[str, ...]:
    sizes = layer.layer.sizes
    name = layer.layer.name if count == 1 else f"{count} like {layer.layer.name}"
    dense = "-" if layer.dense is None else f"{1e6 * layer.dense.seconds:.1f}"
    cells = (_cell(layer, pattern) for pattern in patterns)
    return name, str(layer.layer.rows), f"{sizes.n}x{sizes.k}", dense, *cells, layer.best


def _cell(layer: LayerPrediction, pattern: str) -> str:
    found = layer.patterns.get(pattern)
    return "-" if found is None else f"{layer.gain(pattern):.2f}x {found.form}"


def _layer_json(layer: LayerPrediction, patterns: Sequence[str]) -> dict[str, Any]:
    sizes = layer.layer.sizes
    return {
        "name": layer.layer.name,
        "rows": layer.layer.rows,
        "n": sizes.n,
        "k": sizes.k,
        "dense": None if layer.dense is None else asdict(layer.dense),
        "patterns": {
            pattern: {**asdict(found), "gain": layer.gain(pattern)}
            for pattern, found in layer.patterns.items()
        },
        "reasons": layer.reasons,
        "best": layer.best,
    }
