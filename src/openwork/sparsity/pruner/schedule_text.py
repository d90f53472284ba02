"""Reading schedules from their text form, `family:position:position:option=value`.

The grammar and the table of families stand in `schedule`, which hands the table over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")
Reader = Callable[[str], Any]


def read_whole(text: str) -> int:
    """A whole number; raises ValueError, as the end of a sentence, for anything else."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def read_number(text: str) -> float:
    """A number; raises ValueError, as the end of a sentence, for anything else."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


@dataclass(frozen=True)
class Form(Generic[Made]):
    """One family: what it makes, its positions and its options (name and reader each), and an example.

    required: how many of the positions must be written.
    """

    make: Callable[..., Made]
    positions: Mapping[str, Reader]
    required: int
    options: Mapping[str, Reader]
    example: str


def parse_schedule(text: str, forms: Mapping[str, Form[Made]]) -> Made:
    """What `text` writes in one of the forms, by family; raises ValueError, in a sentence, if it is none."""
    family, *words = text.strip().split(":") if isinstance(text, str) else [""]
    if family not in forms:
        examples = ", ".join(f'"{form.example}"' for form in forms.values())
        raise ValueError(f"{text!r} is not a pruning schedule; write it like one of {examples}.")
    form = forms[family]
    try:
        arguments = _arguments(form, words)
    except ValueError as error:
        raise ValueError(
            f'{text!r} is not a schedule of the kind "{family}": {error}; write it like "{form.example}".'
        ) from None
    return form.make(**arguments)


def _arguments(form: Form[Made], words: list[str]) -> dict[str, Any]:
    plain = [word for word in words if "=" not in word]
    if words[: len(plain)] != plain:
        raise ValueError("options (name=value) come last")
    if not form.required <= len(plain) <= len(form.positions):
        raise ValueError(f"it has {len(plain)} values where it takes {', '.join(form.positions)}")
    read = {name: reader(word) for (name, reader), word in zip(form.positions.items(), plain, strict=False)}
    for word in words[len(plain) :]:
        name, value = word.split("=", 1)
        if name in read:
            raise ValueError(f"{name!r} is given twice")
        read[name] = _option(form, name)(value)
    return read


def _option(form: Form[Made], name: str) -> Reader:
    if name not in form.options:
        raise ValueError(f"{name!r} is not one of its options ({', '.join(form.options) or 'none'})")
    return form.options[name]
