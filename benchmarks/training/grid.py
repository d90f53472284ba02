"""A table of figures: rows and columns by name, each cell a mean and spread over seeds, or not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.table import Table

from .spread import Spread


@dataclass(frozen=True)
class Grid:
    """The figures of one task, each in [0, 1] and higher the better.

    title: what was measured. reference: the row that the others are compared with. cells: by row and column;
    what is missing has not been measured.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    reference: str
    cells: Mapping[tuple[str, str], Spread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        odd = [key for key in self.cells if key[0] not in self.rows or key[1] not in self.columns]
        if odd or self.reference not in self.rows:
            raise ValueError(f"The grid '{self.title}' has no such row or column: {odd or self.reference}.")

    def table(self) -> Table:
        """The grid for a terminal, in percent, without its title."""
        made = Table(box=None, header_style="bold", pad_edge=False)
        made.add_column("")
        for column in self.columns:
            made.add_column(column, justify="right", no_wrap=True)
        for row in self.rows:
            made.add_row(row, *(self.text(row, column) for column in self.columns))
        return made

    def text(self, row: str, column: str) -> str:
        """One cell as the table writes it."""
        found = self.cells.get((row, column))
        return "-" if found is None else found.percent()

    def markdown(self) -> str:
        """The grid as a table of a document, in percent."""
        lines = [["", *self.columns], ["---", *("---:" for _ in self.columns)]]
        lines += [[row, *(self.text(row, column) for column in self.columns)] for row in self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def record(self) -> dict[str, object]:
        """The JSON form."""
        cells = [
            {"row": row, "column": column, **found.record()} for (row, column), found in self.cells.items()
        ]
        return {"title": self.title, "reference": self.reference, "cells": cells}
