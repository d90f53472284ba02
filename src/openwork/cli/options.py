"""Options that need parsing."""

from __future__ import annotations


def parse_shapes(text: str | None) -> tuple[tuple[int, ...], ...] | None:
    """Shapes like "1x32,1x128"; None where there is no text. Raises ValueError for anything else."""
    if text is None:
        return None
    return tuple(_parse_shape(part.strip(), text) for part in text.split(","))


def _parse_shape(part: str, text: str) -> tuple[int, ...]:
    sizes = part.split("x")
    if not all(size.isascii() and size.isdigit() and 0 < len(size) < 10 for size in sizes):
        raise ValueError(f"Shapes are written like 1x32,1x128, but {part!r} in {text!r} is not one.")
    return tuple(int(size) for size in sizes)
