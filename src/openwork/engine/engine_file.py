"""The engine file (docs/engine_file.md): safetensors with the program and the report in its metadata."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from openwork.engine.file_tensors import ALIGNMENT, DTYPES, PADDING, FileTensors, digest_of, read_tensors
from openwork.engine.program import Program
from openwork.engine.program_reader import read_program
from openwork.engine.stored_tensors import Lookup, Tensors
from openwork.support.fields import EngineFileError, Field, parse_json
from openwork.support.files import write_atomic

FORMAT_VERSION = "5"

_LENGTH_BYTES = 8
_BEGINNING = b'{"__metadata__":{"openwork_format":"'
_NO_DIGEST = "0" * 64
_METADATA = frozenset({"openwork_format", "program", "report", "tensor_sha256", "header_sha256"})
# Far above any real engine's header and far below what would exhaust memory while it is parsed.
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class EngineFile:
    """A checked engine: its program, its report as a JSON field yet to be read, and its tensors, mapped
    read-only and each checked when it is first read."""

    path: str
    program: Program
    report: Field
    tensors: FileTensors


def write_engine(
    path: str | os.PathLike[str],
    program: Program,
    report: Mapping[str, Any],
    tensors: Tensors,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write an engine whole or not at all.

    tensors : u8, s8 or f32 arrays; a sparse weight `w` stands as `w.values` and `w.indices` or `w.bitmap`.
    check : is given the written file before it takes its name; what it raises leaves nothing behind.
    Raises ValueError for a tensor of another type, OSError where the file cannot be written.
    """
    entries, pieces = _lay_out(tensors)
    metadata = {
        "openwork_format": FORMAT_VERSION,
        "program": _dump(program.to_json()),
        "report": _dump(report),
        "tensor_sha256": _dump({name: digest_of(np.ascontiguousarray(tensors[name])) for name in tensors}),
        "header_sha256": _NO_DIGEST,
    }
    write_atomic(path, [*_header({"__metadata__": metadata, **entries}), *pieces], check)


def read_engine(path: str | os.PathLike[str]) -> EngineFile:
    """Map an engine file and check everything in it but the contents of its tensors, which nothing reads yet.

    Raises EngineFileError (file, field, expected, found) for a file that is damaged, cut short or malformed
    in any field, and OSError where it cannot be opened.
    """
    name = os.fspath(path)
    data = _map(name)
    header, start = _read_header(name, data)
    members = header.members()
    if "__metadata__" not in members:
        header.refuse("a member '__metadata__', which every engine has")
    metadata = members.pop("__metadata__").object(_METADATA)
    if metadata["openwork_format"].value != FORMAT_VERSION:
        advice = "another version of openwork wrote this engine: build it again from its model"
        metadata["openwork_format"].refuse(f"'{FORMAT_VERSION}' ({advice})")
    _check_digest(metadata["header_sha256"], bytes(data[:start]))
    tensors = read_tensors(header, members, _embedded(metadata["tensor_sha256"]), data[start:])
    used: set[str] = set()
    program = read_program(_embedded(metadata["program"]), Lookup(tensors.mapped, used))
    for unused in sorted(tensors.keys() - used):
        members[unused].refuse("no tensor but those that a step names")
    return EngineFile(name, program, _embedded(metadata["report"]), tensors)


def _dump(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _lay_out(tensors: Tensors) -> tuple[dict[str, Any], list[memoryview]]:
    """The header's entries and the bytes they describe, with padding entries in between."""
    entries: dict[str, Any] = {}
    pieces: list[memoryview] = []
    codes = {dtype: code for code, dtype in DTYPES.items()}
    offset = 0

    def put(name: str, code: str, array: NDArray[Any]) -> None:
        nonlocal offset
        pieces.append(array.reshape(-1).view(np.uint8).data)
        entries[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes

    for name, array in tensors.items():
        if array.dtype not in codes or name == "__metadata__" or name.startswith(PADDING):
            known = "u8, s8, bf16 (as uint16) and f32 tensors"
            raise ValueError(f"An engine stores {known}, but '{name}' is {array.dtype}.")
        if not array.size:
            raise ValueError(f"An engine stores no empty tensors, but '{name}' is {list(array.shape)}.")
        put(name, codes[array.dtype], np.ascontiguousarray(array))
        if padding := -offset % ALIGNMENT:
            put(f"{PADDING}{len(pieces)}", "U8", np.zeros(padding, np.uint8))
    return entries, pieces


def _header(document: dict[str, Any]) -> list[bytes]:
    """Length and JSON, padded with spaces so that the tensors start on a multiple of ALIGNMENT, with its own
    digest."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % ALIGNMENT)
    length = len(text).to_bytes(_LENGTH_BYTES, "little")
    digest = hashlib.sha256(length + text).hexdigest()
    return [length, text.replace(_digest_field(_NO_DIGEST), _digest_field(digest), 1)]


def _digest_field(digest: str) -> bytes:
    return f'"header_sha256":"{digest}"'.encode()


def _map(name: str) -> memoryview:
    status = os.stat(name)
    if not stat.S_ISREG(status.st_mode):
        raise EngineFileError(f"{name}: expected a file, found something else.")
    if status.st_size < _LENGTH_BYTES:
        raise EngineFileError(
            f"{name}: field 'header length': expected {_LENGTH_BYTES} bytes, found a file of "
            f"{status.st_size}."
        )
    with Path(name).open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_header(name: str, data: memoryview) -> tuple[Field, int]:
    """The parsed header and the offset of the first tensor."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if not 2 <= length <= min(len(data) - _LENGTH_BYTES, _LONGEST_HEADER) or start % ALIGNMENT:
        # One that was cut short or altered still begins as an engine, at least as far as it goes.
        if not _BEGINNING.startswith(bytes(data[_LENGTH_BYTES:][: len(_BEGINNING)])):
            _refuse_foreign(name)
        raise EngineFileError(
            f"{name}: field 'header length': expected a length that ends on a multiple of {ALIGNMENT} "
            f"within the {len(data)} bytes of the file, found {length}."
        )
    try:
        text = bytes(data[_LENGTH_BYTES:start]).decode()
    except UnicodeDecodeError as error:
        raise EngineFileError(f"{name}: field 'header': expected UTF-8, found {error}.") from None
    if not any(f'"{member}"' in text for member in _METADATA):
        _refuse_foreign(name)
    return parse_json(name, "header", text), start


def _refuse_foreign(name: str) -> NoReturn:
    raise EngineFileError(f"'{name}' is no engine file; build one with `openwork build`.")


def _check_digest(said: Field, header: bytes) -> None:
    field = _digest_field(said.text())
    if header.count(field) != 1:
        said.refuse("its digest to stand in the header once, as this format writes it")
    digest = hashlib.sha256(header.replace(field, _digest_field(_NO_DIGEST))).hexdigest()
    if said.value != digest:
        said.refuse(f"the SHA-256 digest of the file's header, {digest}: the file is damaged or was altered")


def _embedded(item: Field) -> Field:
    return parse_json(item.file, item.path.rsplit(".", 1)[-1], item.text(longest=_LONGEST_HEADER))
