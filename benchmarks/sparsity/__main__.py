"""One-shot, progressive, gradual and SR-STE at the same budget of steps, and what pruning costs in time.

python -m benchmarks.sparsity                      the digits over three seeds, and MiniLM
python -m benchmarks.sparsity --digits --seeds 1   a part of it
python -m benchmarks.sparsity --overhead           masks of ResNet-50, the step hook on ResNet-18
python -m benchmarks.sparsity --kills 20           kill a training at a random step, resume, compare the bits

Finished cells are stored under --work and not run again. docs/sparsity_training.md says how to read it all.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from benchmarks.training.cells import Cells, write_json
from benchmarks.training.grid import Grid
from openwork.machine import Machine, this_machine
from openwork.progress import progress_bar

from . import digits, minilm, options

# A file or a pipe has no width of its own: the titles are wider than the usual guess.
_WIDTH = 130


def run_digits(plan: digits.Plan, store: Cells) -> Grid:
    """Run what is not stored yet, with one bar over all cells; then the grid of everything."""
    runs = digits.Runs(plan)
    todo = list(digits.cells(plan))
    with progress_bar("digits", len(todo), sys.stderr.isatty()) as advance:
        for done, cell in enumerate(todo):

            def inner(completed: float, note: str = "", done: int = done, name: str = cell.name) -> None:
                advance(done + completed / plan.tuned.steps, name)

            store.result(cell.name, runs.settings(cell), lambda cell=cell, to=inner: runs.run(cell, to))  # type: ignore[misc]
        advance(len(todo))
    return digits.grid(plan, store, runs)


def grids(given: argparse.Namespace) -> list[Grid]:
    """The tables that were asked for."""
    everything = not (given.digits or given.minilm)
    store, found = Cells(given.work / "cells", given.fresh), []
    if given.digits or everything:
        found.append(run_digits(options.digits_plan(given), store))
    if given.minilm or everything:
        plan = options.minilm_plan(given)
        minilm.run(plan, store, given.work, sys.stderr.isatty())
        found.append(minilm.grid(plan, store))
    return found


def show(found: list[Grid], machine: Machine, given: argparse.Namespace, console: Console) -> None:
    """Print the tables, and write them as JSON and as a plot."""
    import torch

    from benchmarks.training import chart

    line = machine.line(torch.get_num_threads())
    console.print(line, soft_wrap=True, highlight=False, style="dim")
    for grid in found:
        console.print()
        console.print(grid.table())
        for sentence in digits.verdicts(grid):
            console.print(sentence, soft_wrap=True, highlight=False)
    record = {"machine": machine.record(), "grids": [grid.record() for grid in found]}
    write_json(given.work / "results.json", record)
    chart.draw(found, line, given.work / "results.png")
    console.print(f"\nWrote {given.work / 'results.json'} and {given.work / 'results.png'}.", highlight=False)


def main(arguments: list[str] | None = None) -> None:
    """Parse, run, print, write."""
    parser = options.parser(__doc__ or "")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    try:
        options.digits_plan(given)
        options.minilm_plan(given)
    except ValueError as error:
        parser.error(str(error))
    if given.overhead:
        from . import overhead

        overhead.main(console, given.work)
    if given.kills is not None:
        from . import kills

        kills.main(given.kills, given.seed, console, given.work)
    if given.digits or given.minilm or not (given.overhead or given.kills is not None):
        show(grids(given), this_machine(("openwork", "torch", "scikit-learn")), given, console)


if __name__ == "__main__":
    main()
