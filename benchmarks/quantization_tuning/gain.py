"""One figure of the table, and how it is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from benchmarks.training.spread import Spread


@dataclass(frozen=True)
class Gain:
    """case: the model. tuned: what was done. error: mean 1 - cosine of the outputs, quantized against float,
    on data that calibration did not see. accuracy, of_float: on the test part, where the task has one.
    """

    case: str
    tuned: str
    error: float
    accuracy: float | None = None
    of_float: float | None = None


def error(found: Tensor, wanted: Tensor) -> float:
    """Mean 1 - cosine over the rows."""
    return float(1 - functional.cosine_similarity(found.double(), wanted.double(), dim=-1).mean())


def lines(gains: Iterable[Gain]) -> list[str]:
    """The table as Markdown, one row for each case and way, over the seeds."""
    rows: dict[tuple[str, str], list[Gain]] = {}
    for gain in gains:
        rows.setdefault((gain.case, gain.tuned), []).append(gain)
    head = "| model | tuned by | 1 - cosine, times 10^4 | accuracy | of float |\n|---|---|---|---|---|"
    return [head, *(_line(case, tuned, found) for (case, tuned), found in rows.items())]


def _line(case: str, tuned: str, found: list[Gain]) -> str:
    errors = Spread.of([gain.error * 1e4 for gain in found])
    scores = [
        _percent([value for gain in found if (value := getattr(gain, field)) is not None])
        for field in ("accuracy", "of_float")
    ]
    return f"| {case} | {tuned} | {errors.mean:.3g} ± {errors.deviation:.2g} | {' | '.join(scores)} |"


def _percent(values: list[float]) -> str:
    return f"{100 * Spread.of(values).mean:.2f} %" if values else ""
