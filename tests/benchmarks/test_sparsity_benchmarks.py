"""The sparsity benchmark: its schedules share one budget, it goes on where it stopped, killed runs resume."""

import json
import sys
from pathlib import Path

import pytest
from benchmarks.sparsity import __main__ as program
from benchmarks.sparsity import digits, kills, lineup, minilm, options, orders, overhead
from benchmarks.sparsity.kills import Case
from benchmarks.training import cells
from benchmarks.training.grid import Grid
from benchmarks.training.spread import Spread

from openwork.bench.latency import Options
from openwork.sparsity.pruner.schedule import Schedule

SEED = 11


@pytest.mark.parametrize("steps", [8, 60, 600])
@pytest.mark.parametrize("name", lineup.SCHEDULES)
def test_each_schedule_ends_halfway_through_the_budget(name: str, steps: int) -> None:
    schedule = lineup.schedule(name, steps)
    assert schedule.final_step <= steps // 2
    assert schedule(steps // 2) == 1.0
    assert Schedule.parse(str(schedule)) == schedule


def test_the_schedules_are_what_they_are_called() -> None:
    at = {name: lineup.schedule(name, 600) for name in lineup.SCHEDULES}
    assert [at["progressive"](step) for step in (0, 149, 150)] == [0.5, 0.5, 1.0]
    assert at["gradual"](0) == 0.0
    assert 0.8 < at["gradual"](150) < 0.9
    assert at["sr-ste"].moving
    assert at["one-shot"].final_step == 0
    with pytest.raises(ValueError, match="but 'sudden' was asked for"):
        lineup.schedule("sudden", 600)


def test_every_cell_of_the_plan_has_its_own_name() -> None:
    found = [cell.name for cell in digits.cells(digits.Plan())]
    assert len(found) == len(set(found)) == 3 * (1 + 4 * 4)


TINY = ["--digits", "--seeds", "1", "--patterns", "2:4", "--schedules", "one-shot,sr-ste"]
TINY += ["--dense-steps", "6", "--steps", "8"]


def test_a_run_writes_its_table_and_goes_on_from_stored_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program.main([*TINY, "--work", str(tmp_path)])
    first = capsys.readouterr().out
    record = json.loads((tmp_path / "results.json").read_text())
    (grid,) = record["grids"]
    assert {cell["row"] for cell in grid["cells"]} == {"dense", "one-shot", "sr-ste"}
    assert (tmp_path / "results.png").stat().st_size > 10_000
    stored = [json.loads(path.read_text()) for path in (tmp_path / "cells").iterdir()]
    zeros = {cell["settings"]["row"]: cell["result"]["zeros"] for cell in stored}
    assert zeros == {"dense": 0.0, "one-shot": 0.5, "sr-ste": 0.5}

    monkeypatch.setattr(digits, "train", None)
    program.main([*TINY, "--work", str(tmp_path)])
    assert capsys.readouterr().out == first


def test_an_interrupted_run_keeps_its_finished_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = digits.Runs.run, []

    def stopped(self: digits.Runs, cell: digits.Cell, advance: object) -> cells.Result:
        calls.append(cell.row)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(self, cell, advance)

    monkeypatch.setattr(digits.Runs, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        program.main([*TINY, "--work", str(tmp_path)])
    program.main([*TINY, "--work", str(tmp_path)])
    assert calls == ["dense", "one-shot", "one-shot", "sr-ste"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedules", "sudden"], "The schedules are one-shot, progressive, gradual, sr-ste, but sudden"),
        (["--patterns", "2:x"], "2:x"),
        (["--seeds", "0"], "at least one seed"),
        (["--minilm-steps", "0"], "at least one step"),
        (["--steps", "0"], "must be positive"),
        (["--orders", "--patterns", "4x1:0.5"], "for N:M patterns along the inputs, but 4x1:0.5 is none"),
        (["--orders", "--texts", "0"], "at least one text to calibrate on"),
        (["--orders", "--channels", "sideways"], "outputs clustered, both, but sideways came"),
        (["--orders", "--distil", "-1"], "0 steps or more, but -1 were asked for"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(words)
    assert message in capsys.readouterr().err


def test_the_verdict_names_what_is_within_the_dense_spread() -> None:
    cells = {
        ("dense", "2:4"): Spread.of((0.98, 0.99, 1.0)),
        ("one-shot", "2:4"): Spread.of((0.979, 0.979)),
        ("gradual", "2:4"): Spread.of((0.985, 0.985)),
    }
    grid = Grid("Title", ("dense", "one-shot", "gradual"), ("2:4", "4:16"), "dense", cells)
    assert digits.verdicts(grid) == ["2:4: within one deviation of dense: gradual"]
    one_seed = {key: Spread.of(spread.values[:1]) for key, spread in cells.items()}
    alone = Grid("Title", grid.rows, grid.columns, "dense", one_seed)
    assert digits.verdicts(alone) == []
    assert minilm.verdicts(alone) == ["2:4: of dense: one-shot 99.9%, gradual 100.5%"]


def test_minilm_s_settings_change_with_what_decides_a_cell() -> None:
    plan = options.minilm_plan(options.parser("").parse_args(["--minilm-steps", "7"]))
    assert plan.steps == 7
    dense, pruned = plan.settings("dense", None), plan.settings("gradual", "2:4")
    assert "steps" not in dense
    assert pruned["schedule"] == "gradual:cubic:0:3"
    assert minilm.Plan().settings("dense", None) == dense


@pytest.mark.slow  # Six processes, each of which imports torch and scikit-learn.
def test_killed_runs_go_on_with_the_same_bits() -> None:
    cases = (Case("2:4", "gradual:cubic:0:20:every=3", "snip-momentum"), Case("2:4", "sr-ste:20:2e-4"))
    found = kills.trials(2, SEED, cases, steps=26)
    assert [outcome.case for outcome in found] == list(cases)
    assert all(outcome.same for outcome in found), (SEED, found)
    assert all(outcome.resumed_at <= outcome.killed_after + 1 for outcome in found), (SEED, found)


def test_a_run_that_goes_on_differently_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [(step, "0x1p+0", f"{step}") for step in range(1, 11)]
    monkeypatch.setattr(kills, "killed_run", lambda *_: lines[:4])
    for after, differences in (
        (lines[3:], 0),
        ([*lines[3:5], (6, "0x1p+1", "6"), *lines[6:]], 1),
        (lines[3:9], 1),
        ([], 1),
    ):
        monkeypatch.setattr(kills, "whole_run", lambda command, after=after: after)
        outcome = kills.trial(Case("2:4", "one-shot"), lines, tmp_path, kills.random.Random(0))
        assert outcome.differences == differences
        assert outcome.same == (differences == 0)


def test_a_training_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no room on the disk"):
        kills.whole_run([sys.executable, "-c", "raise SystemExit('no room on the disk')"])


def test_the_overhead_is_measured_on_the_same_work() -> None:
    brief = Options(warm_up=0.0, duration=0.01, turn=0.001, settle=0.0, minimum_rounds=1)
    whole, parts = overhead.hook_overhead(batch=2, pixels=32, step_options=brief, hook_options=brief)
    assert set(whole) == set(parts) == {"with", "without"}


def test_the_overhead_is_told_against_its_bounds() -> None:
    good = overhead.Overhead(0.3, 2.0, 0.06, 0.04, 0.02, 1.01)
    assert good.hook_fraction == 0.01
    assert all("within" in sentence for sentence in overhead.sentences(good))
    bad = overhead.Overhead(0.6, 2.0, 0.2, 0.1, 0.1, 1.05)
    assert all("above" in sentence for sentence in overhead.sentences(bad))


def test_orders_cluster_what_shares_masks_only() -> None:
    plan = options.orders_plan(options.parser("").parse_args(["--orders", "--queries", "50"]))
    found = list(orders.cells(plan))
    assert len({cell.name for cell in found}) == len(found) == 1 + 2 + 3 * 4
    assert [cell.order for cell in found if cell.pattern == "2:4"] == ["as it comes", "inputs permuted"]
    assert found[1].settings(plan) == {"order": "as it comes", "pattern": "2:4", "queries": 50, "texts": 768}


def test_orders_may_be_distilled() -> None:
    words = ["--orders", "--patterns", "2:4,4:8@64", "--channels", "as it comes,both", "--distil", "10"]
    plan = options.orders_plan(options.parser("").parse_args(words))
    found = list(orders.cells(plan))
    assert [(cell.order, cell.pattern, cell.steps) for cell in found] == [
        ("dense", None, 0),
        ("as it comes", "2:4", 10),
        ("as it comes", "4:8@64", 10),
        ("both", "4:8@64", 10),
    ]
    own, shared = found[1].settings(plan), found[2].settings(plan)
    assert own["recipe"] != shared["recipe"]
    assert own["steps"] == 10


def test_stored_orders_make_a_table(tmp_path: Path) -> None:
    plan, store = orders.Plan(("2:4",)), cells.Cells(tmp_path)
    for cell, ndcg in zip(orders.cells(plan), (0.8, 0.6, 0.7), strict=True):
        store.result(cell.name, cell.settings(plan), lambda ndcg=ndcg: {"ndcg_at_10": ndcg})
    orders.run(plan, store, tmp_path, progress=False)
    table = orders.grid(plan, store)
    assert [table.text(row, "2:4") for row in ("dense", "as it comes", "inputs permuted", "both")] == [
        "80.00",
        "60.00",
        "70.00",
        "-",
    ]
    assert minilm.verdicts(table) == ["2:4: of dense: as it comes 75.0%, inputs permuted 87.5%"]
