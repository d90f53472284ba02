"""Mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def seeds(count: int) -> str:
    """How many seeds, in words for a title."""
    return "one seed" if count == 1 else f"{count} seeds"


@dataclass(frozen=True)
class Spread:
    """Figures of the same cell from several seeds. deviation: the sample's, with n - 1; 0 for one seed."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("A mean needs at least one value, but none came.")

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of `values`, at least one."""
        return cls(tuple(values))

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """The sample's standard deviation."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def within(self, reference: Spread) -> bool:
        """Whether this mean is at most one standard deviation of `reference` below its mean."""
        return self.mean >= reference.mean - reference.deviation

    def percent(self) -> str:
        """As percent: "98.94 ± 0.26", or the value alone where there is one."""
        if len(self.values) == 1:
            return f"{100 * self.mean:.2f}"
        return f"{100 * self.mean:.2f} ± {100 * self.deviation:.2f}"

    def record(self) -> dict[str, object]:
        """The JSON form."""
        return {"values": list(self.values), "mean": self.mean, "deviation": self.deviation}
