"""The digits: a small ResNet trained dense, then pruned and trained on by each schedule, over seeds."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.training import digits
from benchmarks.training.cells import Cells, Result
from benchmarks.training.classifier import Recipe, accuracy, train
from benchmarks.training.grid import Grid
from benchmarks.training.spread import Spread, seeds
from openwork.models import small_resnet
from openwork.sparsity import Pruner
from openwork.sparsity.masks.ends import EVERY
from openwork.support.progress import Advance

from .lineup import DENSE, PATTERNS, SCHEDULES, schedule

# Another order of the images than the dense training's.
_TUNING_ORDER = 1_000


@dataclass(frozen=True)
class Plan:
    """What to run. dense: the training before pruning. tuned: the budget of each schedule, pruning included,
    and of the dense model beside them.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    patterns: tuple[str, ...] = PATTERNS
    schedules: tuple[str, ...] = SCHEDULES
    dense: Recipe = field(default_factory=lambda: Recipe(600))
    tuned: Recipe = field(default_factory=lambda: Recipe(600))


class Cell(NamedTuple):
    """One run. pattern: None for the dense model."""

    row: str
    pattern: str | None
    seed: int

    @property
    def name(self) -> str:
        """Its name among the stored results."""
        return f"digits {self.row} {self.pattern or ''} seed {self.seed}"


def cells(plan: Plan) -> Iterator[Cell]:
    """Every run of the plan, seed by seed."""
    for seed in plan.seeds:
        yield Cell(DENSE, None, seed)
        for pattern in plan.patterns:
            yield from (Cell(name, pattern, seed) for name in plan.schedules)


class Runs:
    """The data, and the dense model of each seed, which all schedules start from."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.data = plan, digits.load()
        self._dense: dict[int, nn.Module] = {}

    def settings(self, cell: Cell) -> dict[str, object]:
        """What decides the result of a cell."""
        plan = self.plan
        pruned = {} if cell.pattern is None else {"schedule": str(schedule(cell.row, plan.tuned.steps))}
        recipes = {"dense": asdict(plan.dense), "tuned": asdict(plan.tuned)}
        return {**cell._asdict(), **recipes, **pruned}

    def run(self, cell: Cell, advance: Advance) -> Result:
        """Train one cell; accuracies on the validation and the test part, and what the pruner says."""
        began = time.monotonic()
        model, pruner, loss = self.trained(cell, advance)
        return {
            "test": accuracy(model, self.data.test),
            "validation": accuracy(model, self.data.validation),
            "loss": loss,
            "zeros": pruner.zeros if pruner else 0.0,
            "seconds": time.monotonic() - began,
        }

    def trained(self, cell: Cell, advance: Advance | None = None) -> tuple[nn.Module, Pruner | None, float]:
        """The model of one cell after its training, its pruner with all masks verified, and the last loss."""
        model = copy.deepcopy(self._dense_model(cell.seed))
        pruner = self._pruner(model, cell)
        prepare = pruner.attach if pruner else None
        order = _TUNING_ORDER + cell.seed
        loss = train(model, self.data, self.plan.tuned, order, prepare, advance)
        if pruner:
            pruner.verify()
            pruner.detach()
        return model, pruner, loss

    def _pruner(self, model: nn.Module, cell: Cell) -> Pruner | None:
        if cell.pattern is None:
            return None
        return Pruner(model, cell.pattern, EVERY, schedule=schedule(cell.row, self.plan.tuned.steps))

    def _dense_model(self, seed: int) -> nn.Module:
        if seed not in self._dense:
            torch.manual_seed(seed)
            model = small_resnet()
            train(model, self.data, self.plan.dense, seed)
            self._dense[seed] = model
        return self._dense[seed]


def grid(plan: Plan, store: Cells, runs: Runs) -> Grid:
    """The stored results of `plan` as a table of test accuracies."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells(plan):
        stored = store.get(cell.name, runs.settings(cell))
        for column in plan.patterns if cell.pattern is None else (cell.pattern,):
            if stored is not None:
                found.setdefault((cell.row, column), []).append(stored["test"])
    title = (
        f"Digits, small ResNet: test accuracy in percent, mean and deviation over {seeds(len(plan.seeds))}; "
        f"{plan.dense.steps} steps dense, then {plan.tuned.steps} by each schedule"
    )
    spreads = {key: Spread.of(values) for key, values in found.items()}
    return Grid(title, (DENSE, *plan.schedules), plan.patterns, DENSE, spreads)


def verdicts(grid: Grid) -> list[str]:
    """For each pattern, which schedules end within the dense model's spread; one seed has no spread."""
    lines = []
    for column in grid.columns:
        dense = grid.cells.get((DENSE, column))
        pruned = {row: grid.cells.get((row, column)) for row in grid.rows if row != DENSE}
        if dense is None or len(dense.values) < 2 or not any(pruned.values()):
            continue
        good = [row for row, found in pruned.items() if found is not None and found.within(dense)]
        lines.append(f"{column}: within one deviation of dense: {', '.join(good) or 'none'}")
    return lines
