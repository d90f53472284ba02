"""MiniLM's docstring search: each schedule distils the pruned model from the dense one for the same steps."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.training.cells import Cells, Result
from benchmarks.training.grid import Grid
from benchmarks.training.search import Search
from benchmarks.training.spread import Spread
from openwork.distillation import Budget, DistillationSettings, distil
from openwork.models import SentenceEmbedder
from openwork.sparsity import Pruner

from .lineup import DENSE, SCHEDULES, schedule

PATTERNS = ("2:4", "4:16")


@dataclass(frozen=True)
class Plan:
    """What to run. steps: of distillation, pruning included. queries: held-out pairs to score with."""

    patterns: tuple[str, ...] = PATTERNS
    schedules: tuple[str, ...] = SCHEDULES
    steps: int = 120
    batch_size: int = 32
    learning_rate: float = 2e-4
    queries: int = 1_000
    seed: int = 0

    def settings(self, row: str, pattern: str | None) -> dict[str, object]:
        """What decides the result of a cell."""
        shared = {"row": row, "queries": self.queries}
        if pattern is None:
            return shared
        recipe = {name: getattr(self, name) for name in ("steps", "batch_size", "learning_rate", "seed")}
        return {**shared, "pattern": pattern, **recipe, "schedule": str(schedule(row, self.steps))}


def run(plan: Plan, store: Cells, work: Path, progress: bool) -> None:
    """Make every cell that is not stored yet; the model and the texts are loaded where one is missing."""
    wanted = [(DENSE, None), *((row, pattern) for pattern in plan.patterns for row in plan.schedules)]
    missing = [cell for cell in wanted if store.get(_name(*cell), plan.settings(*cell)) is None]
    if not missing:
        return
    search = Search(work, plan.queries)
    for row, pattern in missing:
        store.result(
            _name(row, pattern),
            plan.settings(row, pattern),
            lambda row=row, pattern=pattern: _make(plan, search, row, pattern, progress),  # type: ignore[misc]
        )


def _name(row: str, pattern: str | None) -> str:
    return f"minilm {row} {pattern or ''}"


def _make(plan: Plan, search: Search, row: str, pattern: str | None, progress: bool) -> Result:
    began = time.monotonic()
    student = copy.deepcopy(search.teacher)
    loss = 0.0 if pattern is None else _distilled(plan, search, student, row, pattern, progress)
    found = search.score(student, f"search, {row} {pattern or ''}", progress)
    return {**asdict(found), "loss": loss, "seconds": time.monotonic() - began}


def _distilled(
    plan: Plan, search: Search, student: SentenceEmbedder, row: str, pattern: str, progress: bool
) -> float:
    settings = DistillationSettings(
        batch_size=plan.batch_size, learning_rate=plan.learning_rate, seed=plan.seed
    )
    pruner = Pruner(student, pattern, schedule=schedule(row, plan.steps))
    report = distil(
        student,
        search.teacher,
        search.training,
        Budget(steps=plan.steps),
        pruner=pruner,
        settings=settings,
        progress=progress,
    )
    pruner.verify()
    return report.loss


def grid(plan: Plan, store: Cells) -> Grid:
    """The stored results as a table of NDCG@10."""
    found = {}
    for column in plan.patterns:
        for row in (DENSE, *plan.schedules):
            pattern = None if row == DENSE else column
            stored = store.get(_name(row, pattern), plan.settings(row, pattern))
            if stored is not None:
                found[row, column] = Spread.of([stored["ndcg_at_10"]])
    title = (
        f"MiniLM, docstring search: NDCG@10 in percent over {plan.queries:,} documents, one seed; "
        f"{plan.steps} steps of distillation by each schedule"
    )
    return Grid(title, (DENSE, *plan.schedules), plan.patterns, DENSE, found)


def verdicts(grid: Grid) -> list[str]:
    """For each pattern, what every schedule keeps of the dense model's NDCG@10."""
    lines = []
    for column in grid.columns:
        dense = grid.cells.get((DENSE, column))
        pruned = {row: grid.cells.get((row, column)) for row in grid.rows if row != DENSE}
        kept = [f"{row} {found.mean / dense.mean:.1%}" for row, found in pruned.items() if found and dense]
        if kept:
            lines.append(f"{column}: of dense: {', '.join(kept)}")
    return lines
