"""One progress bar for every long stage: what it does, how far it is, how long it still takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Advance(Protocol):
    """Called by a stage as it goes: `completed` of its total, and a few words on what it is at."""

    def __call__(self, completed: float, note: str = "") -> None: ...


def _silent(completed: float, note: str = "") -> None:
    return None


@contextmanager
def progress_bar(title: str, total: float, shown: bool = True) -> Iterator[Advance]:
    """A bar on the standard error stream while the block runs; with `shown` false, nothing."""
    if not shown:
        yield _silent
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda completed, note="": bar.update(task, completed=completed, note=note)
