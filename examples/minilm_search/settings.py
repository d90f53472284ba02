"""What the demo is asked for, and the numbers that it does not ask about."""

from dataclasses import dataclass
from pathlib import Path

SHAPES = ((1, 32), (1, 128), (16, 128))
"""Batch x length at which latency is measured."""
PATTERNS = ("2:4", "32:64", "16:64")
HEADLINE = "32:64"
"""Answers `--query`, and its layers are shown: on a CPU as fast as 2:4, and it keeps more."""
MAXIMUM_LENGTH = 128
"""Tokens; longer texts are cut."""
CALIBRATION_TEXTS = 256
PRUNING_TEXTS = 1_024
SHARE = {"2:4": 0.3, "32:64": 0.2, "16:64": 0.5}
"""Of the distillation's time: what pruning alone costs most needs it most."""
FULL_MINUTES = {"2:4": 30.0, "32:64": 30.0, "16:64": 60.0}


@dataclass(frozen=True)
class Settings:
    """One run of the demo.

    work: the folder for everything it makes. minutes: what the whole run may take, to which `plan` fits its
    stages. distill_minutes: training time of all patterns, of which each gets its SHARE; 0 skips it, None
    takes what is left. full: train for FULL_MINUTES instead. seconds: timed calls per runner and shape.
    """

    work: Path
    threads: int
    distill_minutes: float | None = None
    full: bool = False
    seconds: float = 1.5
    minutes: float = 18.0
