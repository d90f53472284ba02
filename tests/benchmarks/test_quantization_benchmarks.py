"""The quantization benchmark: its cells, its verdicts, and a tiny run that goes on where it stopped."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks.quantization import __main__ as program
from benchmarks.quantization import digits, lineup, minilm
from benchmarks.training.grid import Grid
from benchmarks.training.spread import Spread

from openwork.quantization import FakeQuantize
from openwork.sparsity import Pattern

TINY = ["--digits", "--seeds", "1", "--dense-steps", "6", "--steps", "6", "--qat-steps", "3"]


def test_every_cell_of_the_plan_has_its_own_name() -> None:
    found = [cell.name for cell in digits.cells(digits.Plan())]
    assert len(found) == len(set(found)) == 3 * 2 * 6


def test_each_row_asks_for_its_observer() -> None:
    asked = {row: lineup.options(row) for row in lineup.SEARCH_ROWS if row != lineup.FLOAT}
    assert {row: found.observer for row, found in asked.items()} == {
        "PTQ max": "max",
        "PTQ percentile": "percentile",
        "PTQ entropy": "entropy",
        "PTQ mse": "mse",
        "PTQ output": "output",
        "QAT": "max",
    }
    assert asked["PTQ output"].style == "openwork"


def test_a_run_writes_its_table_and_goes_on_from_stored_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program.main([*TINY, "--work", str(tmp_path)])
    first = capsys.readouterr().out
    (grid,) = json.loads((tmp_path / "results.json").read_text())["grids"]
    assert {(cell["row"], cell["column"]) for cell in grid["cells"]} == {
        (row, column) for row in lineup.ROWS for column in lineup.COLUMNS
    }
    assert "points from dense FP32" in first
    monkeypatch.setattr(digits.Runs, "run", None)
    program.main([*TINY, "--work", str(tmp_path)])
    assert capsys.readouterr().out == first


def test_sparse_training_ends_quantized_and_with_its_zeros() -> None:
    given = program.parser().parse_args(TINY)
    runs = digits.Runs(program.digits_plan(given))
    model = runs._made(digits.Cell("QAT", "2:4", 0), lambda done, note="": None)
    quantizers = [module for module in model.modules() if isinstance(module, FakeQuantize)]
    assert {quantizer.mode for quantizer in quantizers} == {"quantizing"}
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "weight_mask")}
    assert len(layers) == 6
    for name, layer in layers.items():
        integers = layer.weight_quantizer.integers(layer.weight.detach())
        assert integers.dtype == torch.int8
        stack = integers.reshape(*integers.shape[:2], -1).movedim(2, 0)
        assert Pattern.parse("2:4").holds((stack != 0).numpy()), name


def _grid(figures: dict[tuple[str, str], float], rows: tuple[str, ...]) -> Grid:
    cells = {key: Spread.of([value]) for key, value in figures.items()}
    return Grid("Title", rows, lineup.COLUMNS, lineup.FLOAT, cells)


@pytest.mark.parametrize(("trained", "expected"), [(0.9851, "-0.49 points"), (0.9849, "-0.51 points")])
def test_the_digits_verdict_is_half_a_point(trained: float, expected: str) -> None:
    grid = _grid({("QAT", "2:4"): trained, ("FP32", "dense"): 0.99}, lineup.ROWS)
    (sentence,) = digits.verdict(grid)
    assert expected in sentence
    assert ("within 0.5" in sentence) == (trained == 0.9851)


def test_the_search_verdict_names_what_keeps_99_percent() -> None:
    figures = {(row, "2:4"): 0.69 for row in lineup.SEARCH_ROWS}
    figures |= {("FP32", "2:4"): 0.70, ("PTQ mse", "2:4"): 0.6935, ("QAT", "2:4"): 0.71}
    (sentence,) = minilm.verdict(_grid(figures, lineup.SEARCH_ROWS))
    assert sentence.endswith("Within 1%: PTQ mse, QAT.")
    assert "PTQ max 98.57%" in sentence


def test_an_unfinished_grid_has_no_verdict() -> None:
    grid = _grid({("QAT", "2:4"): 0.9}, lineup.SEARCH_ROWS)
    assert digits.verdict(grid) == minilm.verdict(grid) == []


def test_what_decides_a_cell_is_in_its_settings() -> None:
    plan = program.minilm_plan(program.parser().parse_args(["--minilm-steps", "7"]))
    assert plan.settings("FP32", "2:4")["steps"] == 7
    assert "steps" not in plan.settings("QAT", "dense")
    assert plan.settings("FP32", "dense") == minilm.Plan().settings("FP32", "dense")
    assert plan.settings("PTQ max", "dense") != plan.settings("PTQ mse", "dense")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "at least one seed"),
        (["--qat-steps", "0"], "must be positive"),
        (["--minilm-qat-steps", "0"], "at least one step"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(words)
    assert message in capsys.readouterr().err
