"""FP32, PTQ by each observer, and QAT, dense and 2:4, in one table.

python -m benchmarks.quantization                      the digits over three seeds, and MiniLM
python -m benchmarks.quantization --digits --seeds 1   a part of it

Finished cells are stored under --work and not run again. docs/quantization_results.md says more.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.training import report
from benchmarks.training.cells import Cells
from benchmarks.training.report import Finding, Task

from . import digits, minilm

WORK = Path("build/benchmarks/quantization")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = made.add_argument_group("parts; without one of them, both")
    parts.add_argument("--digits", action="store_true", help="a small ResNet on scikit-learn's digits")
    parts.add_argument("--minilm", action="store_true", help="MiniLM's docstring search")
    add = made.add_argument
    plan, search = digits.Plan(), minilm.Plan()
    add("--seeds", type=int, default=len(plan.seeds), help="of the digits")
    add("--dense-steps", type=int, default=plan.float.dense.steps, help="of the digits, before pruning")
    add("--steps", type=int, default=plan.float.tuned.steps, help="of the digits, pruning included")
    add("--qat-steps", type=int, default=plan.qat.steps, help="of the digits")
    add("--minilm-steps", type=int, default=search.steps, help="of the pruned model's distillation")
    add("--minilm-qat-steps", type=int, default=search.qat_steps, help="of the quantized models")
    add("--queries", type=int, default=search.queries, help="held-out pairs of the docstring search")
    add("--work", type=Path, default=WORK, help="where finished cells, JSON and plot are written")
    add("--fresh", action="store_true", help="make every cell anew, whatever is stored")
    return made


def digits_plan(given: argparse.Namespace) -> digits.Plan:
    """The digits' part. Raises ValueError for a wrong option."""
    if given.seeds < 1:
        raise ValueError(f"There is at least one seed, but {given.seeds} were asked for.")
    plan = digits.Plan()
    dense = replace(plan.float.dense, steps=given.dense_steps)
    tuned = replace(plan.float.tuned, steps=given.steps)
    qat = replace(plan.qat, steps=given.qat_steps)
    return digits.Plan(tuple(range(given.seeds)), replace(plan.float, dense=dense, tuned=tuned), qat)


def minilm_plan(given: argparse.Namespace) -> minilm.Plan:
    """MiniLM's part. Raises ValueError for a wrong option."""
    if min(given.minilm_steps, given.minilm_qat_steps) < 1:
        raise ValueError("There is at least one step of each distillation.")
    return replace(
        minilm.Plan(), steps=given.minilm_steps, qat_steps=given.minilm_qat_steps, queries=given.queries
    )


def findings(given: argparse.Namespace) -> list[Finding]:
    """The tables that were asked for, each with what follows from it."""
    everything = not (given.digits or given.minilm)
    store, found = Cells(given.work / "cells", given.fresh), []
    if given.digits or everything:
        plan = digits_plan(given)
        runs = digits.Runs(plan)
        task = Task(runs.settings, runs.run, plan.qat.steps)
        report.run_all("digits", list(digits.cells(plan)), task, store)
        table = digits.grid(plan, store, runs)
        found.append(Finding(table, digits.verdict(table)))
    if given.minilm or everything:
        search = minilm_plan(given)
        minilm.run(search, store, given.work, sys.stderr.isatty())
        table = minilm.grid(search, store)
        found.append(Finding(table, minilm.verdict(table)))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print, write."""
    made = parser()
    given = made.parse_args(arguments)
    try:
        digits_plan(given)
        minilm_plan(given)
    except ValueError as error:
        made.error(str(error))
    report.show(findings(given), given.work, report.console())


if __name__ == "__main__":
    main()
