"""One-shot, progressive, gradual and SR-STE at the same budget of steps, and what pruning costs in time.

python -m benchmarks.sparsity                      the digits over three seeds, and MiniLM
python -m benchmarks.sparsity --digits --seeds 1   a part of it
python -m benchmarks.sparsity --orders             MiniLM after SparseGPT, channels clustered and permuted
python -m benchmarks.sparsity --orders --distil 1000   and distilled after it
python -m benchmarks.sparsity --overhead           masks of ResNet-50, the step hook on ResNet-18
python -m benchmarks.sparsity --kills 20           kill a training at a random step, resume, compare the bits

Finished cells are stored under --work and not run again. docs/sparsity_training.md says how to read it all.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.training import report
from benchmarks.training.cells import Cells
from benchmarks.training.report import Finding, Task

from . import digits, kills, minilm, options, orders, overhead


def findings(given: argparse.Namespace) -> list[Finding]:
    """The tables that were asked for."""
    everything = not (given.digits or given.minilm or given.orders)
    store, found = Cells(given.work / "cells", given.fresh), []
    if given.digits or everything:
        plan = options.digits_plan(given)
        runs = digits.Runs(plan)
        task = Task(runs.settings, runs.run, plan.tuned.steps)
        report.run_all("digits", list(digits.cells(plan)), task, store)
        table = digits.grid(plan, store, runs)
        found.append(Finding(table, digits.verdicts(table)))
    if given.minilm or everything:
        search = options.minilm_plan(given)
        minilm.run(search, store, given.work, sys.stderr.isatty())
        table = minilm.grid(search, store)
        found.append(Finding(table, minilm.verdicts(table)))
    if given.orders:
        plan = options.orders_plan(given)
        orders.run(plan, store, given.work, sys.stderr.isatty())
        table = orders.grid(plan, store)
        found.append(Finding(table, minilm.verdicts(table)))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print, write."""
    parser = options.parser(__doc__ or "")
    given = parser.parse_args(arguments)
    try:
        options.digits_plan(given)
        options.minilm_plan(given)
        if given.orders:
            options.orders_plan(given)
    except ValueError as error:
        parser.error(str(error))
    console = report.console()
    if given.overhead:
        overhead.main(console, given.work)
    if given.kills is not None:
        kills.main(given.kills, given.seed, console, given.work)
    tables = given.digits or given.minilm or given.orders
    if tables or not (given.overhead or given.kills is not None):
        report.show(findings(given), given.work, console)


if __name__ == "__main__":
    main()
