"""What a pruner did with every layer, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openwork.sparsity.masks.eligibility import LayerEligibility, json_table, text_table


@dataclass(frozen=True)
class PruningReport:
    """rows: one per parameter of the model, those of two or more dimensions first. zeros: the fraction of
    zeros of each pruned layer's mask. parameters: how many numbers the model's parameters are in all.
    """

    rows: tuple[LayerEligibility, ...]
    zeros: Mapping[str, float] = field(default_factory=dict)
    parameters: int = 0

    def __str__(self) -> str:
        """A table: layer, kind, shape, pattern, zeros, "eligible" or the reason why not; and a line that
        sums it up.
        """
        eligible = [row for row in self.rows if row.eligible]
        weights = sum(_size(row) for row in eligible)
        zero = sum(_size(row) * self.zeros.get(row.name, 0.0) for row in eligible)
        share = f", {zero / weights:.1%} of their weights zero" if weights else ""
        matrices = sum(len(row.shape) >= 2 for row in self.rows)
        covered = f"; these are {weights:,} of the model's {self.parameters:,} parameters"
        return (
            f"{text_table(self.rows, self.zeros)}\n{len(eligible)} of {matrices} weights pruned{share}"
            f"{covered if self.parameters else ''}"
        )

    def json(self) -> str:
        """The rows as a JSON list (see `json_table`)."""
        return json_table(self.rows, self.zeros)


def _size(row: LayerEligibility) -> int:
    size = 1
    for length in row.shape:
        size *= length
    return size
