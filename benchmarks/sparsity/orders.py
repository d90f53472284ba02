"""MiniLM's docstring search after SparseGPT, distilled or not: what the order of channels is worth."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from examples.minilm_search.training import token_batches

from benchmarks.training.cells import Cells, Result
from benchmarks.training.grid import Grid
from benchmarks.training.search import Search
from benchmarks.training.spread import Spread
from openwork.distillation import Budget, DistillationLoss, DistillationSettings, distil
from openwork.models import SentenceEmbedder
from openwork.sparsity import Calibration, GroupPattern, Pattern, PermutationOptions, Pruner, permute
from openwork.sparsity.permutation.scores import Sides

from .lineup import DENSE

PATTERNS = ("2:4", "4:8@64", "64:128@64", "64:256@128")
ORDERS: dict[str, Sides | None] = {
    "as it comes": None,
    "inputs permuted": "inputs",
    "outputs clustered": "outputs",
    "both": "both",
}
OWN_MASKS = DistillationSettings()
SHARED_MASKS = DistillationSettings(learning_rate=5e-4, loss=DistillationLoss(intermediate=1.0))
"""Masks that channels share start further from the teacher: the inner layers need guidance of their own."""


@dataclass(frozen=True)
class Plan:
    """What to run. texts: that SparseGPT and the order are calibrated on. queries: held-out pairs.

    orders: of ORDERS. steps: of distillation after pruning, 32 texts each.
    """

    patterns: tuple[str, ...] = PATTERNS
    texts: int = 768
    queries: int = 1_000
    orders: tuple[str, ...] = tuple(ORDERS)
    steps: int = 0

    def __post_init__(self) -> None:
        for text in self.patterns:
            pattern = Pattern.parse(text)
            if not isinstance(pattern, GroupPattern) or pattern.transposable:
                raise ValueError(
                    f"Channels are put in order for N:M patterns along the inputs, but {text} is none."
                )
        if self.texts < 1:
            raise ValueError(f"There is at least one text to calibrate on, but {self.texts} were asked for.")
        if unknown := set(self.orders) - set(ORDERS):
            raise ValueError(f"The orders are {', '.join(ORDERS)}, but {', '.join(sorted(unknown))} came.")
        if self.steps < 0:
            raise ValueError(f"Distillation takes 0 steps or more, but {self.steps} were asked for.")


class Cell(NamedTuple):
    """One run. pattern: None for the dense model. steps: of distillation."""

    order: str
    pattern: str | None
    steps: int = 0

    @property
    def name(self) -> str:
        """Its name among the stored results."""
        distilled = f" {self.steps} steps" if self.steps else ""
        return f"minilm order {self.order} {self.pattern or ''}{distilled}"

    @property
    def recipe(self) -> DistillationSettings:
        """How it is distilled."""
        return SHARED_MASKS if "@" in (self.pattern or "") else OWN_MASKS

    def settings(self, plan: Plan) -> dict[str, object]:
        """What decides its result."""
        shared = {"order": self.order, "pattern": self.pattern, "queries": plan.queries}
        calibrated = {} if self.pattern is None else {"texts": plan.texts}
        distilled = {"steps": self.steps, "recipe": asdict(self.recipe)} if self.steps else {}
        return {**shared, **calibrated, **distilled}


def cells(plan: Plan) -> Iterator[Cell]:
    """Every run of the plan; only masks that are shared can be clustered."""
    yield Cell(DENSE, None)
    for text in plan.patterns:
        shared = "@" in text
        for order in plan.orders:
            if shared or ORDERS[order] in (None, "inputs"):
                yield Cell(order, text, plan.steps)


def run(plan: Plan, store: Cells, work: Path, progress: bool) -> None:
    """Make every cell that is not stored yet; the model and the texts are loaded where one is missing."""
    missing = [cell for cell in cells(plan) if store.get(cell.name, cell.settings(plan)) is None]
    if not missing:
        return
    search = Search(work, plan.queries)
    for cell in missing:
        store.result(
            cell.name,
            cell.settings(plan),
            lambda cell=cell: _make(plan, search, cell, progress),  # type: ignore[misc]
        )


def _make(plan: Plan, search: Search, cell: Cell, progress: bool) -> Result:
    began = time.monotonic()
    student = copy.deepcopy(search.teacher)
    kept = {} if cell.pattern is None else _trained(plan, search, student, cell, progress)
    found = search.score(student, f"search, {cell.name}", progress)
    return {**asdict(found), **kept, "seconds": time.monotonic() - began}


def _trained(
    plan: Plan, search: Search, student: SentenceEmbedder, cell: Cell, progress: bool
) -> dict[str, float]:
    """Order the channels, prune, distil.

    Returns what the pattern keeps of the layers' output energy before and after the order, and how the
    distillation went.
    """
    batches = token_batches(search.training[: plan.texts])
    calibration, sides = Calibration(batches), ORDERS[cell.order]
    pattern, kept = cell.pattern or "", {}
    if sides is not None:
        options = PermutationOptions("output", sides, calibration, progress=progress)
        moved = permute(student, batches[0], pattern, exclude=("*embeddings*",), options=options)
        if moved.reason:
            raise RuntimeError(f"The channels of MiniLM were not moved: {moved.reason}")
        kept = {"before": moved.before, "after": moved.after, "ordering": moved.seconds}
    pruner = Pruner(student, pattern)
    errors = pruner.prune("sparsegpt", calibration, progress=progress)
    kept["layer_error"] = sum(errors.values()) / len(errors)
    if cell.steps:
        report = distil(
            student,
            search.teacher,
            search.training,
            Budget(steps=cell.steps),
            pruner,
            cell.recipe,
            progress=progress,
        )
        kept.update(loss=report.loss, distilling=report.seconds)
    pruner.verify()
    return kept


def grid(plan: Plan, store: Cells) -> Grid:
    """The stored results as a table of NDCG@10."""
    found = {}
    for cell in cells(plan):
        stored = store.get(cell.name, cell.settings(plan))
        for column in plan.patterns if cell.pattern is None else (cell.pattern,):
            if stored is not None:
                found[cell.order, column] = Spread.of([stored["ndcg_at_10"]])
    title = (
        f"MiniLM, docstring search: NDCG@10 in percent over {plan.queries:,} documents after one-shot "
        f"SparseGPT on {plan.texts:,} texts and {plan.steps:,} steps of distillation, by order of channels"
    )
    return Grid(title, (DENSE, *plan.orders), plan.patterns, DENSE, found)
