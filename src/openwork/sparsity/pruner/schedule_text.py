"""Reading schedules from their text form (the grammar stands in `schedule`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openwork.sparsity.pruner.schedule import Gradual, OneShot, Progressive, Schedule, SparseRefined

_Reader = Callable[[str], Any]


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


@dataclass(frozen=True)
class _Form:
    """One family: what it makes, its positions and its options (name and reader each), and an example."""

    make: Callable[..., Schedule]
    positions: tuple[tuple[str, _Reader], ...]
    required: int
    options: tuple[tuple[str, _Reader], ...]
    example: str


_FORMS = {
    "one-shot": _Form(OneShot, (("start", _whole),), 0, (), "one-shot"),
    "progressive": _Form(
        Progressive,
        (("substeps", _whole), ("interval", _whole)),
        2,
        (("start", _whole),),
        "progressive:2:1000",
    ),
    "gradual": _Form(
        Gradual,
        (("kind", str), ("start", _whole), ("end", _whole)),
        3,
        (("every", _whole), ("initial", _number), ("density", _number)),
        "gradual:cubic:100:1000:every=50",
    ),
    "sr-ste": _Form(
        SparseRefined,
        (("freeze", _whole), ("strength", _number)),
        1,
        (("every", _whole),),
        "sr-ste:1000:2e-4",
    ),
}


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` writes; raises ValueError, in a sentence, if it writes none."""
    family, *words = text.strip().split(":") if isinstance(text, str) else [""]
    if family not in _FORMS:
        examples = ", ".join(f'"{form.example}"' for form in _FORMS.values())
        raise ValueError(f"{text!r} is not a pruning schedule; write it like one of {examples}.")
    form = _FORMS[family]
    try:
        arguments = _arguments(form, words)
    except ValueError as error:
        raise ValueError(
            f'{text!r} is not a schedule of the kind "{family}": {error}; write it like "{form.example}".'
        ) from None
    return form.make(**arguments)


def _arguments(form: _Form, words: list[str]) -> dict[str, Any]:
    plain = [word for word in words if "=" not in word]
    if words[: len(plain)] != plain:
        raise ValueError("options (name=value) come last")
    if not form.required <= len(plain) <= len(form.positions):
        names = ", ".join(name for name, _ in form.positions) or "nothing"
        raise ValueError(f"it has {len(plain)} values where it takes {names}")
    read = {name: reader(word) for (name, reader), word in zip(form.positions, plain, strict=False)}
    for word in words[len(plain) :]:
        name, value = word.split("=", 1)
        if name in read:
            raise ValueError(f"{name!r} is given twice")
        read[name] = _option(form, name)(value)
    return read


def _option(form: _Form, name: str) -> _Reader:
    readers = dict(form.options)
    if name not in readers:
        raise ValueError(f"{name!r} is not one of its options ({', '.join(readers) or 'none'})")
    return readers[name]
