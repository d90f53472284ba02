"""`python -m examples.minilm_search`: the options, and nothing else."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .console import quiet
from .settings import Settings

WIDTH = 100


def main(
    work: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("build/demo"),
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runner.")] = 2,
    minutes: Annotated[
        float, typer.Option(min=1, help="Minutes to fit the run into, the installation aside.")
    ] = Settings.minutes,
    distill_minutes: Annotated[
        float | None, typer.Option(min=0, help="Minutes to distil, all patterns together; else what is left.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Distil for two hours in all instead.")] = False,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Seconds to time each runner at each shape.")
    ] = Settings.seconds,
    query: Annotated[str | None, typer.Option(help="Search the documentation, sparse.")] = None,
    hits: Annotated[int, typer.Option(min=1, help="How many hits to show.")] = 5,
) -> None:
    """Make a dense MiniLM sparse and INT8, and compare quality and latency with the field."""
    quiet()
    console = Console(width=None if Console().is_terminal else WIDTH)
    try:
        if query is not None:
            from .search import Index, show

            show(Index(work, threads).search(query, hits), console)
            return
        from .demo import run

        run(Settings(work, threads, distill_minutes, full, seconds, minutes), console)
    except (ValueError, OSError, ImportError) as error:
        console.print(f"The demo stopped: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("Stopped; the next run goes on from here.")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    typer.run(main)
