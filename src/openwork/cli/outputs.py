"""What a command is to write, looked at before its work, which would be lost otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from openwork.support.files import keep_apart, output_file


def check_outputs(
    outputs: Sequence[Path | None], inputs: Sequence[Path | None], others: Sequence[Path | None] = ()
) -> None:
    """Raises OSError where one of `outputs` cannot be written, and ValueError where one of them, or of
    `others`, which are written too but look after themselves, would replace another one or an input."""
    for output in outputs:
        if output is not None:
            output_file(output)
    keep_apart((*outputs, *others), inputs)
