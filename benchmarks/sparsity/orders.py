"""MiniLM's docstring search after one-shot SparseGPT: what the order of channels is worth to shared masks."""

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


@dataclass(frozen=True)
class Plan:
    """What to run. texts: that SparseGPT and the order are calibrated on. queries: held-out pairs."""

    patterns: tuple[str, ...] = PATTERNS
    texts: int = 768
    queries: int = 1_000

    def __post_init__(self) -> None:
        for text in self.patterns:
            pattern = Pattern.parse(text)
            if not isinstance(pattern, GroupPattern) or pattern.transposable:
                raise ValueError(
                    f"Channels are put in order for N:M patterns along the inputs, but {text} is none."
                )
        if self.texts < 1:
            raise ValueError(f"There is at least one text to calibrate on, but {self.texts} were asked for.")


class Cell(NamedTuple):
    """One run. pattern: None for the dense model."""

    order: str
    pattern: str | None

    @property
    def name(self) -> str:
        """Its name among the stored results."""
        return f"minilm order {self.order} {self.pattern or ''}"

    def settings(self, plan: Plan) -> dict[str, object]:
        """What decides its result."""
        calibrated = {} if self.pattern is None else {"texts": plan.texts}
        return {**self._asdict(), "queries": plan.queries, **calibrated}


def cells(plan: Plan) -> Iterator[Cell]:
    """Every run of the plan; only masks that are shared can be clustered."""
    yield Cell(DENSE, None)
    for text in plan.patterns:
        shared = "@" in text
        for order, sides in ORDERS.items():
            if shared or sides in (None, "inputs"):
                yield Cell(order, text)


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
    kept = {} if cell.pattern is None else _pruned(plan, search, student, cell, progress)
    found = search.score(student, f"search, {cell.name}", progress)
    return {**asdict(found), **kept, "seconds": time.monotonic() - began}


def _pruned(
    plan: Plan, search: Search, student: SentenceEmbedder, cell: Cell, progress: bool
) -> dict[str, float]:
    """Order the channels, prune; what the pattern keeps of the layers' output energy before and after."""
    batches = token_batches(search.training[: plan.texts])
    calibration, sides = Calibration(batches), ORDERS[cell.order]
    pattern, kept = cell.pattern or "", {}
    if sides is not None:
        options = PermutationOptions("output", sides, calibration, progress=progress)
        report = permute(student, batches[0], pattern, exclude=("*embeddings*",), options=options)
        if report.reason:
            raise RuntimeError(f"The channels of MiniLM were not moved: {report.reason}")
        kept = {"before": report.before, "after": report.after, "ordering": report.seconds}
    pruner = Pruner(student, pattern)
    errors = pruner.prune("sparsegpt", calibration, progress=progress)
    pruner.verify()
    return {**kept, "layer_error": sum(errors.values()) / len(errors)}


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
        f"SparseGPT on {plan.texts:,} texts, by the order of channels"
    )
    return Grid(title, (DENSE, *ORDERS), plan.patterns, DENSE, found)
