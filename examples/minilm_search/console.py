"""What the demo says while it works: one line when a stage begins, one when it ends."""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from .settings import PATTERNS

STAGES = 7 + len(PATTERNS)


class Narrator:
    """Counts the stages and keeps what each took, in seconds."""

    def __init__(self, console: Console) -> None:
        self.console, self.seconds = console, dict[str, float]()

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Announce a stage, and say how long it took once it ends well."""
        self.console.print(f"[bold]\\[{len(self.seconds) + 1}/{STAGES}] {title}[/bold]", highlight=False)
        begin = time.monotonic()
        yield
        self.seconds[title] = time.monotonic() - begin
        self.console.print(f"      done in {self.seconds[title]:.1f} s", style="dim", highlight=False)

    def say(self, text: str) -> None:
        """One indented line within a stage."""
        self.console.print(f"      {text}", highlight=False, markup=False, soft_wrap=True)


def quiet() -> None:
    """Keep what the libraries remark about their own code off the user's screen; errors still show."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
