"""`python -m examples.text_to_image`: the options, and nothing else."""

import logging
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .settings import UNETS, Settings


def main(
    work: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("build/text_to_image"),
    size: Annotated[str, typer.Option(help="Of the UNet: small or full.")] = Settings.size,
    threads: Annotated[int, typer.Option(min=1, help="Threads of training and runners.")] = Settings.threads,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = Settings.steps,
    finetune: Annotated[int, typer.Option(min=1, help="Training steps after pruning.")] = Settings.finetune,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of a training step.")] = Settings.batch,
    weights: Annotated[Path | None, typer.Option(help="Your own weights of the dense painter.")] = None,
    sampling: Annotated[int, typer.Option(min=1, help="Steps from noise to a picture.")] = Settings.sampling,
    pictures: Annotated[int, typer.Option(min=16, help="Pictures to judge.")] = Settings.pictures,
    seconds: Annotated[float, typer.Option(min=0.05, help="Timed calls of a runner.")] = Settings.seconds,
) -> None:
    """Train a text-to-image UNet on drawn letters, prune it to 2:4, and compare pictures and times."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    console = Console()
    if size not in UNETS:
        console.print(f"The size is {' or '.join(UNETS)}, but it is {size!r}.", style="red", markup=False)
        raise typer.Exit(1)
    from .demo import Demo

    given = Settings(
        work,
        size,
        threads,
        steps,
        finetune,
        batch,
        weights,
        sampling,
        pictures=pictures,
        seconds=seconds,
    )
    try:
        Demo(given, console).run()
    except (ValueError, OSError) as error:
        console.print(f"The example stopped: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("Stopped; the next run goes on from here.")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    typer.run(main)
