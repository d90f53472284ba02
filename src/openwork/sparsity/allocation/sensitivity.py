"""How much each layer's loss suffers from each pattern, as a value; `measuring` makes it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sensitivity:
    """The loss of a model when one layer alone is pruned.

    dense: the loss with no layer pruned. losses: by layer and pattern (text); infinite where pruning made it
    so, or NaN. refused: the reason why a layer cannot carry a pattern, by layer and pattern. method: how the
    layers were pruned.
    """

    dense: float
    losses: Mapping[str, Mapping[str, float]]
    refused: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    method: str = "magnitude"

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns that some layer was pruned to, in the order in which they were asked for."""
        # A layer that took more patterns knows more of the order.
        by_count = sorted(self.losses.values(), key=len, reverse=True)
        return tuple(dict.fromkeys(text for losses in by_count for text in losses))

    def increase(self, layer: str, pattern: str) -> float:
        """The loss with `layer` pruned to `pattern`, less the dense one.

        Raises ValueError where that was not measured.
        """
        losses = self.losses.get(layer, {})
        if pattern not in losses:
            why = self.refused.get(layer, {}).get(pattern, "")
            raise ValueError(
                f'The layer "{layer}" was not measured with the pattern "{pattern}". {why}'.strip()
            )
        return losses[pattern] - self.dense

    def ranked(self, pattern: str) -> list[str]:
        """The layers that were pruned to `pattern`, the most sensitive first."""
        layers = [layer for layer, losses in self.losses.items() if pattern in losses]
        return sorted(layers, key=lambda layer: -self.increase(layer, pattern))

    def table(self) -> str:
        """Aligned lines: a layer in each, the increase of the loss for each pattern, "-" where refused."""
        patterns = self.patterns
        names = dict.fromkeys((*self.losses, *self.refused))
        cells = [["layer", *patterns], *([name, *self._cells(name, patterns)] for name in names)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(patterns) + 1)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            )
            for row in cells
        ]
        head = f"Increase of the loss ({self.dense:.6g} dense) when one layer is pruned by {self.method}"
        return "\n".join([head, *(line.rstrip() for line in lines)])

    def json(self) -> str:
        """The value as a JSON object; `from_json` reads it back exactly."""
        return json.dumps(self.document(), indent=1)

    def document(self) -> dict[str, Any]:
        """The value as what JSON holds; an infinite loss is null."""
        return {
            "method": self.method,
            "dense": self.dense,
            "losses": {n: {t: _finite(v) for t, v in losses.items()} for n, losses in self.losses.items()},
            "refused": {name: dict(reasons) for name, reasons in self.refused.items()},
        }

    @staticmethod
    def from_json(text: str) -> Sensitivity:
        """The value that `json` wrote; raises ValueError for anything else, saying what is wrong."""
        try:
            return Sensitivity.from_document(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"A sensitivity is read from JSON, but this is none: {error}.") from None

    @staticmethod
    def from_document(document: Any) -> Sensitivity:
        """The value that `document` gave; raises ValueError for anything else, saying what is wrong."""
        for name, kind in _MEMBERS.items():
            if not isinstance(document, dict) or not isinstance(document.get(name), kind):
                raise ValueError(
                    f'A sensitivity has a member "{name}", but it is missing or no {_WORDS[kind]}.'
                )
        losses = {name: _losses(name, found) for name, found in document["losses"].items()}
        refused = {name: _reasons(name, found) for name, found in document["refused"].items()}
        return Sensitivity(float(document["dense"]), losses, refused, document["method"])

    def _cells(self, layer: str, patterns: tuple[str, ...]) -> list[str]:
        measured = self.losses.get(layer, {})
        return [f"{self.increase(layer, text):+.4g}" if text in measured else "-" for text in patterns]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


_MEMBERS: dict[str, type] = {"method": str, "dense": float, "losses": dict, "refused": dict}
_WORDS: dict[type, str] = {str: "text", float: "number", dict: "object"}


def _losses(layer: str, found: Any) -> dict[str, float]:
    values = found.items() if isinstance(found, dict) else [("", found)]
    for text, value in values:
        if not text or not (
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        ):
            raise ValueError(f'The losses of "{layer}" are numbers by pattern, but they hold {value!r}.')
    return {text: math.inf if value is None else float(value) for text, value in values}


def _reasons(layer: str, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(reason, str) for reason in found.values()):
        raise ValueError(f'The refusals of "{layer}" are sentences by pattern, but they are {found!r}.')
    return dict(found)
