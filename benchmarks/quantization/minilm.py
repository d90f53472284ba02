"""MiniLM's docstring search, dense and 2:4 (SparseGPT, then distilled): FP32, PTQ and QAT."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.minilm_search.training import token_batches

from benchmarks.training.cells import Cells, Result
from benchmarks.training.grid import Grid
from benchmarks.training.search import Search
from benchmarks.training.spread import Spread
from openwork.distillation import Budget, DistillationSettings, distil
from openwork.models import SentenceEmbedder
from openwork.quantization import calibrate, prepare, quantize
from openwork.sparsity import Calibration, Pruner

from .lineup import COLUMNS, DENSE, FLOAT, SPARSE, TRAINED, complete, options
from .lineup import SEARCH_ROWS as ROWS

LEAST_KEPT = 0.99
"""Of the NDCG@10 of 2:4 FP32, by 2:4 INT8."""


@dataclass(frozen=True)
class Plan:
    """What to run. steps: of distillation of the pruned network. qat_steps, qat_rate: of the quantized ones,
    from the calibrated network. queries: held-out pairs to score with.
    """

    steps: int = 240
    qat_steps: int = 60
    qat_rate: float = 5e-5
    pruning_texts: int = 512
    calibration_texts: int = 128
    queries: int = 1_000
    seed: int = 0

    def checkpoint(self, work: Path) -> Path:
        """Where the distillation of the pruned network goes on from."""
        return work / f"minilm.2_4.{self.steps}_{self.pruning_texts}_{self.seed}.checkpoint"

    def settings(self, row: str, column: str) -> dict[str, object]:
        """What decides the result of a cell."""
        found: dict[str, object] = {"row": row, "column": column, "queries": self.queries, "seed": self.seed}
        if column != DENSE:
            found |= {"steps": self.steps, "pruning_texts": self.pruning_texts}
        if row != FLOAT:
            found |= {"options": asdict(options(row)), "calibration_texts": self.calibration_texts}
        if row == TRAINED:
            found |= {"qat_steps": self.qat_steps, "qat_rate": self.qat_rate}
        return found


class Runs:
    """The search, and the FP32 networks, each made where a cell first needs it."""

    def __init__(self, plan: Plan, work: Path, progress: bool) -> None:
        self.plan, self.progress = plan, progress
        self.search = Search(work, plan.queries)
        self._checkpoint = plan.checkpoint(work)
        self._sparse: SentenceEmbedder | None = None

    def run(self, row: str, column: str) -> Result:
        """The quality of one cell."""
        began = time.monotonic()
        model = self._float_model(column)
        if row == TRAINED:
            model = self._trained(model, column)
        elif row != FLOAT:
            model = quantize(model, self._batches(), options(row), progress=self.progress)  # type: ignore[assignment]
        found = self.search.score(model, f"search, {row} {column}", self.progress)
        return {**asdict(found), "seconds": time.monotonic() - began}

    def _batches(self) -> list[dict[str, Any]]:
        chosen = token_batches(self.search.training[: self.plan.calibration_texts])
        return [{"input_ids": ids, "attention_mask": mask} for ids, mask in chosen]

    def _float_model(self, column: str) -> SentenceEmbedder:
        if column == DENSE:
            return self.search.teacher
        if self._sparse is None:
            self._sparse = self._pruned(column)
        return self._sparse

    def _pruned(self, pattern: str) -> SentenceEmbedder:
        """The pruned network after its distillation, which goes on from its checkpoint if there is one."""
        student = copy.deepcopy(self.search.teacher)
        pruner = Pruner(student, pattern)
        texts = token_batches(self.search.training[: self.plan.pruning_texts])
        pruner.prune("sparsegpt", Calibration(texts), progress=self.progress)
        settings = DistillationSettings(seed=self.plan.seed, checkpoint_seconds=20.0)
        self._distil(student, pruner, self.plan.steps, settings, self._checkpoint)
        pruner.detach()
        return student

    def _trained(self, model: SentenceEmbedder, column: str) -> SentenceEmbedder:
        """Distillation of a quantized copy of `model`, its masks held and not chosen anew."""
        student = copy.deepcopy(model)
        pruner = None if column == DENSE else Pruner(student, column)
        batches = self._batches()
        prepared = prepare(student, batches[0], options(TRAINED), inplace=True)
        calibrate(prepared, batches, progress=self.progress)
        settings = DistillationSettings(
            learning_rate=self.plan.qat_rate, warmup_steps=5, seed=self.plan.seed + 1
        )
        self._distil(student, pruner, self.plan.qat_steps, settings, None)
        return student

    def _distil(
        self,
        student: SentenceEmbedder,
        pruner: Pruner | None,
        steps: int,
        settings: DistillationSettings,
        checkpoint: Path | None,
    ) -> None:
        distil(
            student,
            self.search.teacher,
            self.search.training,
            Budget(steps=steps),
            pruner=pruner,
            settings=settings,
            checkpoint=checkpoint,
            progress=self.progress,
        )
        if pruner:
            pruner.verify()


def run(plan: Plan, store: Cells, work: Path, progress: bool) -> None:
    """Make every cell that is not stored yet; the model and the texts are loaded where one is missing."""
    wanted = [(row, column) for column in COLUMNS for row in ROWS]
    missing = [cell for cell in wanted if store.get(_name(*cell), plan.settings(*cell)) is None]
    if not missing:
        return
    if store.fresh:
        plan.checkpoint(work).unlink(missing_ok=True)
    runs = Runs(plan, work, progress)
    for row, column in missing:
        store.result(_name(row, column), plan.settings(row, column), _making(runs, row, column))


def _making(runs: Runs, row: str, column: str) -> Callable[[], Result]:
    return lambda: runs.run(row, column)


def _name(row: str, column: str) -> str:
    return f"quantized minilm {row} {column}"


def grid(plan: Plan, store: Cells) -> Grid:
    """The stored results as a table of NDCG@10."""
    found = {}
    for column in COLUMNS:
        for row in ROWS:
            stored = store.get(_name(row, column), plan.settings(row, column))
            if stored is not None:
                found[row, column] = Spread.of([stored["ndcg_at_10"]])
    title = f"MiniLM, docstring search: NDCG@10 in percent over {plan.queries:,} documents, one seed"
    return Grid(title, ROWS, COLUMNS, FLOAT, found)


def verdict(grid: Grid) -> list[str]:
    """What each row of 2:4 INT8 keeps of 2:4 FP32."""
    if not complete(grid, [(row, SPARSE) for row in ROWS]):
        return []
    base = grid.cells[FLOAT, SPARSE].mean
    kept = {row: grid.cells[row, SPARSE].mean / base for row in ROWS if row != FLOAT}
    good = [row for row, share in kept.items() if share >= LEAST_KEPT]
    shares = ", ".join(f"{row} {share:.2%}" for row, share in kept.items())
    return [
        f"Of {SPARSE} {FLOAT}'s NDCG@10, {SPARSE} INT8 keeps: {shares}. Within {1 - LEAST_KEPT:.0%}: "
        f"{', '.join(good) or 'none'}."
    ]
