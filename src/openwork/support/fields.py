"""Reading untrusted JSON: every field is checked before it is used, and the error says where,
what and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn


class EngineFileError(ValueError):
    """An engine file that cannot be trusted; the message says file, field, expected and found."""


def shown(value: object, limit: int = 80) -> str:
    """The value as it may stand in a message: its repr, cut at `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(frozen=True)
class Field:
    """One value of a JSON document together with where it stands.

    Every method returns the checked content or raises EngineFileError.
    """

    file: str
    path: str
    value: Any

    def refuse(self, expected: str) -> NoReturn:
        raise EngineFileError(
            f"{self.file}: field '{self.path}': expected {expected}, found {shown(self.value)}."
        )

    def object(self, required: frozenset[str], optional: frozenset[str] = frozenset()) -> dict[str, Field]:
        """The members of an object that has all of `required`
        and nothing outside `required` and `optional`."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        missing = sorted(required - self.value.keys())
        if missing:
            self.refuse(f"an object with the member '{missing[0]}'")
        unknown = sorted(self.value.keys() - required - optional)
        if unknown:
            self.refuse(f"an object without the unknown member '{unknown[0]}'")
        return self.members()

    def members(self) -> dict[str, Field]:
        """The members of an object of any names."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return {key: Field(self.file, f"{self.path}.{key}", item) for key, item in self.value.items()}

    def items(self) -> Iterator[Field]:
        """The elements of an array."""
        if not isinstance(self.value, list):
            self.refuse("an array")
        return (Field(self.file, f"{self.path}[{i}]", item) for i, item in enumerate(self.value))

    def text(self, longest: int = 4096) -> str:
        """A string of 1 to `longest` characters."""
        if not isinstance(self.value, str) or not 0 < len(self.value) <= longest:
            self.refuse(f"a string of 1 to {longest} characters")
        return self.value

    def choice(self, allowed: tuple[str, ...]) -> str:
        """One of the strings in `allowed`."""
        if self.value not in allowed or not isinstance(self.value, str):
            self.refuse("one of " + ", ".join(allowed))
        return self.value

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]; JSON booleans are not integers."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            self.refuse(f"an integer from {low} to {high}")
        return self.value

    def number(self, low: float, high: float) -> float:
        """A number in [low, high]."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.refuse(f"a number from {low:g} to {high:g}")
        return float(value)


def parse_json(file: str, path: str, text: str) -> Field:
    """Parse one JSON document, refusing duplicate names, NaN, infinities and bottomless nesting."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EngineFileError(f"{file}: field '{path}': expected a JSON document, found {error}.") from None
    return Field(file, path, value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {shown(twice)} twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"the constant {name}, which JSON does not have")
