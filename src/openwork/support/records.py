"""Frozen dataclasses as JSON and back, checked field by field against their type hints."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, cast

from openwork.support.fields import Field

Record = TypeVar("Record")

_LONGEST_TEXT = 1_000_000
_LARGEST = 2**53


def read_record(kind: type[Record], item: Field) -> Record:
    """The dataclass `kind` from a JSON object.

    Hints may be str, int, float, bool, X | None, tuple[X, ...], dict[str, X] and further dataclasses.
    Raises EngineFileError naming the field where the document does not match.
    """
    hints = typing.get_type_hints(kind)
    listed = fields(cast(Any, kind))
    required = frozenset(f.name for f in listed if f.default is MISSING and f.default_factory is MISSING)
    members = item.object(required, frozenset(f.name for f in listed) - required)
    return kind(**{name: _read(hints[name], member) for name, member in members.items()})


def _read(hint: Any, item: Field) -> Any:
    if is_dataclass(hint):
        return read_record(cast(Any, hint), item)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if item.value is None else _read(inner, item)
    if origin is tuple:
        return tuple(_read(arguments[0], element) for element in item.items())
    if origin is dict:
        return {name: _read(arguments[1], member) for name, member in item.members().items()}
    return _read_plain(hint, item)


def _read_plain(hint: Any, item: Field) -> Any:
    if hint is bool:
        if not isinstance(item.value, bool):
            item.refuse("true or false")
        return item.value
    if hint is int:
        return item.integer(-_LARGEST, _LARGEST)
    if hint is float:
        return item.number(-1e300, 1e300)
    if not isinstance(item.value, str) or len(item.value) > _LONGEST_TEXT:
        item.refuse(f"a string of at most {_LONGEST_TEXT} characters")
    return item.value
