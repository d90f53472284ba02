"""Running the cells of a plan under one bar, and showing grids: on the terminal, as JSON and as a plot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from rich.console import Console

from openwork.support.machine import this_machine
from openwork.support.progress import Advance, progress_bar

from . import chart
from .cells import Cells, Result, Settings, write_json
from .grid import Grid

# A file or a pipe has no width of its own: the titles are wider than the usual guess.
_WIDTH = 130


class Named(Protocol):
    """A cell of a plan."""

    @property
    def name(self) -> str:
        """Its name among the stored results."""
        ...


CellType = TypeVar("CellType", bound=Named)


@dataclass(frozen=True)
class Task(Generic[CellType]):
    """How to make the cells of a plan. settings: what decides a cell's result. run: makes it, and tells how
    many of its `steps` are done.
    """

    settings: Callable[[CellType], Settings]
    run: Callable[[CellType, Advance], Result]
    steps: int

    def make(self, cell: CellType, store: Cells, advance: Advance) -> Result:
        """The result of one cell; `advance` hears the finished part of it, from 0 to 1."""

        def told(completed: float, note: str = "") -> None:
            advance(completed / self.steps, note or cell.name)

        told(0.0)
        return store.result(cell.name, self.settings(cell), lambda: self.run(cell, told))


def run_all(title: str, todo: Sequence[CellType], task: Task[CellType], store: Cells) -> None:
    """Make every cell of `todo` that is not stored yet, with one bar over all of them."""
    with progress_bar(title, len(todo), sys.stderr.isatty()) as advance:
        for done, cell in enumerate(todo):

            def told(completed: float, note: str = "", done: int = done) -> None:
                advance(done + completed, note)

            task.make(cell, store, told)
        advance(len(todo))


@dataclass(frozen=True)
class Finding:
    """A grid, and sentences on what follows from it."""

    grid: Grid
    sentences: Sequence[str] = ()


def show(found: Sequence[Finding], work: Path, console: Console) -> None:
    """Print the grids with what follows from them; write results.json and results.png to `work`."""
    machine = this_machine(("openwork", "torch", "scikit-learn"))
    line = machine.line(torch.get_num_threads())
    console.print(line, soft_wrap=True, highlight=False, style="dim")
    for finding in found:
        console.print(f"\n[bold]{finding.grid.title}[/bold]", soft_wrap=True, highlight=False)
        console.print(finding.grid.table())
        for sentence in finding.sentences:
            console.print(sentence, soft_wrap=True, highlight=False)
    grids = [finding.grid for finding in found]
    write_json(work / "results.json", {"machine": machine.record(), "grids": [g.record() for g in grids]})
    chart.draw(grids, line, work / "results.png")
    names = f"{work / 'results.json'} and {work / 'results.png'}"
    console.print(f"\nWrote {names}.", highlight=False, soft_wrap=True)


def console() -> Console:
    """The standard output, wide enough for the tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)
