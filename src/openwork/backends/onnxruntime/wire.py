"""How much an ONNX model's bytes grow into, found before anything parses them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

MOST_MESSAGES, MOST_FIELDS, DEEPEST = 1 << 20, 1 << 24, 64
"""Two bytes can be a message that takes a hundred once it is parsed. A network of ten thousand nodes has
about a hundred thousand messages, nested ten deep; a forest of a million decision nodes ten million
fields."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class WireError(ValueError):
    """Bytes that are no message, or one too large to parse; the message says which."""


def check_growth(content: memoryview, kind: Any) -> None:
    """Refuse, with a WireError, a protobuf message that is cut short, nested too deeply or of too many parts.

    content : the bytes. kind : the message's descriptor (google.protobuf).
    """
    _Scan().message(content, kind, 0)


class _Scan:
    def __init__(self) -> None:
        self.messages = self.fields = 0

    def message(self, content: memoryview, kind: Any, depth: int) -> None:
        self.messages += 1
        if self.messages > MOST_MESSAGES or depth > DEEPEST:
            raise WireError(f"more than {MOST_MESSAGES} parts, or parts nested more than {DEEPEST} deep")
        inner = _inner(kind)
        at = 0
        while at < len(content):
            key, at = _varint(content, at)
            begin, at = _skip(content, at, key & 7)
            self.fields += 1
            if self.fields > MOST_FIELDS or at > len(content):
                raise WireError(f"more than {MOST_FIELDS} fields, or a field cut short")
            if key & 7 == _BYTES and key >> 3 in inner:
                self.message(content[begin:at], inner[key >> 3], depth + 1)


@cache
def _inner(kind: Any) -> Mapping[int, Any]:
    """By its number, the kind of each field that is a message itself."""
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _skip(content: memoryview, at: int, wire: int) -> tuple[int, int]:
    """Where a field's content begins and ends."""
    if wire == _VARINT:
        return at, _varint(content, at)[1]
    if wire == _FIXED64:
        return at, at + 8
    if wire == _FIXED32:
        return at, at + 4
    if wire != _BYTES:
        raise WireError(f"a field of the unknown wire type {wire}")
    length, begin = _varint(content, at)
    return begin, begin + length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next one begins."""
    value = 0
    for place, byte in enumerate(content[at : at + _LONGEST_VARINT]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise WireError("a number without an end")
