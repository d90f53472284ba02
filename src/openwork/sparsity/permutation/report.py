"""What a permutation did, as values and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MEASURES = {"magnitude": "magnitude", "energy": "energy", "output": "energy of the outputs"}


@dataclass(frozen=True)
class LayerOutcome:
    """One weight that the pattern is meant for.

    before, after : the part of its score that the pattern keeps, 0 to 1. reason : why its input channels,
    or some of them, kept their order; empty where they were free. output_reason : the same of its output
    channels; empty where no masks are shared among them.
    """

    name: str
    before: float
    after: float
    reason: str = ""
    output_reason: str = ""


@dataclass(frozen=True)
class ClassOutcome:
    """One class of channels that move together.

    layers : the weights whose kept score depends on it. channels : how many. before, after : kept score of
    the layers (sums of |w| or w^2). applied : whether the order was changed. reason : why not; empty where
    it was.
    """

    layers: tuple[str, ...]
    channels: int
    before: float
    after: float
    applied: bool
    reason: str = ""


@dataclass(frozen=True)
class PermutationReport:
    """What `permute` did.

    difference, tolerance : of the outputs before and after, in double precision; 0 where nothing was applied.
    reason : why nothing could be done at all; empty otherwise. seconds : wall time.
    """

    pattern: str
    score: str
    classes: tuple[ClassOutcome, ...] = ()
    layers: tuple[LayerOutcome, ...] = ()
    before: float = 0.0
    after: float = 0.0
    difference: float = 0.0
    tolerance: float = 0.0
    seconds: float = 0.0
    reason: str = ""

    @property
    def applied(self) -> int:
        """How many classes have a new order."""
        return sum(each.applied for each in self.classes)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.reason:
            return f"No channel was moved. {self.reason}"
        rows = [
            f"{each.name:<48} {each.before:8.4f} {each.after:8.4f}  {_reasons(each)}".rstrip()
            for each in self.layers
        ]
        head = f"{'layer':<48} {'before':>8} {'after':>8}  channels that keep their order"
        tail = (
            f"{self.pattern} keeps {self.after:.4f} of the {MEASURES[self.score]}, {self.before:.4f} before; "
            f"{self.applied} of {len(self.classes)} classes of channels moved; outputs differ by "
            f"{self.difference:.1e} (at most {self.tolerance:.1e} is rounding); {self.seconds:.1f} s"
        )
        return "\n".join([head, *rows, tail])


def _reasons(layer: LayerOutcome) -> str:
    named = {"inputs": layer.reason, "outputs": layer.output_reason}
    return " ".join(f"{side}: {reason}" for side, reason in named.items() if reason)
