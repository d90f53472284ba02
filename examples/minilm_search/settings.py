"""What the demo is asked for, and the numbers that it does not ask about."""

from dataclasses import dataclass
from pathlib import Path

SHAPES = ((1, 32), (1, 128), (16, 128))
"""Batch x length at which latency is measured."""
PATTERNS = ("2:4", "4:16")
MAXIMUM_LENGTH = 128
"""Tokens; longer texts are cut."""
CALIBRATION_TEXTS = 256
PRUNING_TEXTS = 1_024
SHARE = {"2:4": 1.0, "4:16": 0.4}
"""Of the distillation's budget: 2:4, which answers `--query`, has it whole; 4:16 shows how far that goes."""
FULL_MINUTES = {"2:4": 30.0, "4:16": 60.0}


@dataclass(frozen=True)
class Settings:
    """One run of the demo.

    work: the folder for everything it makes. distill_minutes: training time of 2:4, of which 4:16 gets its
    SHARE; 0 skips both. full: train for FULL_MINUTES instead. seconds: timed calls per runner and shape.
    """

    work: Path
    threads: int
    distill_minutes: float
    full: bool = False
    seconds: float = 1.5

    def minutes(self, pattern: str) -> float:
        """The training time of one pattern."""
        return FULL_MINUTES[pattern] if self.full else SHARE[pattern] * self.distill_minutes
