"""Bad input ends a command with one sentence and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what bad input raises in the block into its sentence on the standard error stream
    and exit code 2."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        Console(stderr=True).print(
            f"Error: {_sentence(error)}", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(2) from None


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    return " ".join(str(error).split())
