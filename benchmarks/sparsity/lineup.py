"""The schedules that take part, each spread over the same number of optimizer steps."""

from __future__ import annotations

from openwork.sparsity.pruner.schedule import Schedule

DENSE = "dense"
SCHEDULES = ("one-shot", "progressive", "gradual", "sr-ste")
PATTERNS = ("2:4", "2:4@2", "4:16", "4x1:0.75")
_SUBSTEPS = 2
_UPDATES = 20
_REGROWTH = 2e-4


def schedule(name: str, steps: int) -> Schedule:
    """The schedule `name` over a budget of `steps`.

    Whatever moves the masks has half of the budget, so that each schedule trains its last masks for the other
    half: progressive sets half of the zeros at once and the rest after a quarter of the budget, gradual
    follows the cubic of Zhu & Gupta 2017, and SR-STE freezes its masks (Zhou et al. 2021, strength 2e-4).
    """
    moving = max(2, steps // 2)
    texts = {
        "one-shot": "one-shot",
        "progressive": f"progressive:{_SUBSTEPS}:{max(1, moving // _SUBSTEPS)}",
        "gradual": f"gradual:cubic:0:{moving}:every={max(1, moving // _UPDATES)}",
        "sr-ste": f"sr-ste:{moving}:{_REGROWTH}",
    }
    if name not in texts:
        raise ValueError(f"The schedules are {', '.join(SCHEDULES)}, but {name!r} was asked for.")
    return Schedule.parse(texts[name])
