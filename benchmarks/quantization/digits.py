"""The digits: the small ResNet, dense and 2:4, in FP32, quantized after training, and trained quantized."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.sparsity import digits as pruning
from benchmarks.training.cells import Cells, Result
from benchmarks.training.classifier import Recipe, accuracy, train
from benchmarks.training.digits import Digits
from benchmarks.training.grid import Grid
from benchmarks.training.spread import Spread, seeds
from openwork.quantization import calibrate, prepare, quantize
from openwork.sparsity import Pruner
from openwork.sparsity.masks.ends import EVERY
from openwork.support.progress import Advance

from .lineup import COLUMNS, DENSE, FLOAT, ROWS, SPARSE, TRAINED, complete, options

MOST_LOST = 0.005
"""Of accuracy, by sparse quantization-aware training against dense FP32."""
_CALIBRATION_IMAGES, _CALIBRATION_BATCH = 512, 64
_SCHEDULE = "one-shot"
# Another order of the images than the trainings before.
_QAT_ORDER = 2_000


@dataclass(frozen=True)
class Plan:
    """What to run. float: the training of the FP32 networks. qat: a tenth of its steps at a hundredth of its
    learning rate, from the calibrated network.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    float: pruning.Plan = field(default_factory=pruning.Plan)
    qat: Recipe = field(default_factory=lambda: Recipe(120, learning_rate=1e-3, warmup_steps=5))


class Cell(NamedTuple):
    """One figure of one seed."""

    row: str
    column: str
    seed: int

    @property
    def name(self) -> str:
        """Its name among the stored results."""
        return f"quantized digits {self.row} {self.column} seed {self.seed}"

    @property
    def source(self) -> pruning.Cell:
        """The FP32 network that it quantizes."""
        if self.column == DENSE:
            return pruning.Cell(DENSE, None, self.seed)
        return pruning.Cell(_SCHEDULE, self.column, self.seed)


def cells(plan: Plan) -> Iterator[Cell]:
    """Every run of the plan; what quantizes the same network lies together."""
    for seed in plan.seeds:
        for column in COLUMNS:
            yield from (Cell(row, column, seed) for row in ROWS)


class Runs:
    """The data, and the FP32 network that was asked for last."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self._runs = plan, pruning.Runs(plan.float)
        self._kept: tuple[pruning.Cell, nn.Module] | None = None

    @property
    def data(self) -> Digits:
        """The digits."""
        return self._runs.data

    def settings(self, cell: Cell) -> dict[str, object]:
        """What decides the result of a cell."""
        quantized: dict[str, object] = {}
        if cell.row != FLOAT:
            quantized = {"options": asdict(options(cell.row)), "images": _CALIBRATION_IMAGES}
        if cell.row == TRAINED:
            quantized["qat"] = asdict(self.plan.qat)
        return {"cell": cell._asdict(), "source": self._runs.settings(cell.source), **quantized}

    def run(self, cell: Cell, advance: Advance) -> Result:
        """The accuracies of one cell, and the zeros of its weights."""
        began = time.monotonic()
        model = self._made(cell, advance)
        return {
            "test": accuracy(model, self.data.test),
            "validation": accuracy(model, self.data.validation),
            "seconds": time.monotonic() - began,
        }

    def _made(self, cell: Cell, advance: Advance) -> nn.Module:
        model = self._float_model(cell.source)
        if cell.row == FLOAT:
            return model
        if cell.row != TRAINED:
            return quantize(model, calibration(self.data), options(cell.row))
        return self._trained(model, cell, advance)

    def _trained(self, model: nn.Module, cell: Cell, advance: Advance) -> nn.Module:
        """Quantization-aware training of a copy of `model`, its masks held and not chosen anew."""
        model = copy.deepcopy(model)
        pruner = None if cell.column == DENSE else Pruner(model, cell.column, EVERY)
        batches = calibration(self.data)
        calibrate(prepare(model, batches[0], options(cell.row), inplace=True), batches)
        attach = pruner.attach if pruner else None
        train(model, self.data, self.plan.qat, _QAT_ORDER + cell.seed, attach, advance)
        if pruner:
            pruner.verify()
        return model

    def _float_model(self, source: pruning.Cell) -> nn.Module:
        if self._kept is None or self._kept[0] != source:
            self._kept = source, self._runs.trained(source)[0]
        return self._kept[1]


def calibration(data: Digits) -> Sequence[Tensor]:
    """Batches of training images as they are."""
    return torch.split(data.train.images[:_CALIBRATION_IMAGES], _CALIBRATION_BATCH)


def grid(plan: Plan, store: Cells, runs: Runs) -> Grid:
    """The stored results of `plan` as a table of test accuracies."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells(plan):
        stored = store.get(cell.name, runs.settings(cell))
        if stored is not None:
            found.setdefault((cell.row, cell.column), []).append(stored["test"])
    title = (
        f"Digits, small ResNet: test accuracy in percent, mean and deviation over {seeds(len(plan.seeds))}"
    )
    spreads = {key: Spread.of(values) for key, values in found.items()}
    return Grid(title, ROWS, COLUMNS, FLOAT, spreads)


def verdict(grid: Grid) -> list[str]:
    """Sparse quantization-aware training against dense FP32."""
    wanted = ((TRAINED, SPARSE), (FLOAT, DENSE))
    if not complete(grid, wanted):
        return []
    trained, dense = (grid.cells[cell].mean for cell in wanted)
    word = "within" if dense - trained <= MOST_LOST else "outside"
    return [
        f"{SPARSE} {TRAINED} is {100 * (trained - dense):+.2f} points from dense {FLOAT}, {word} "
        f"{100 * MOST_LOST:g}."
    ]
