"""The tensors of an engine file: views of the mapped bytes, each checked against its digest when it is first
read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.support.cores import physical_cores
from openwork.support.fields import EngineFileError, Field

ALIGNMENT = 64
PADDING = "__padding__."
DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
}
"""The types of an engine file; NumPy has none for BF16, so that its bits stand in unsigned integers."""

LARGEST_CHECKED_TABLE = 64 << 20
"""Bytes up to which a table that steps read row by row is checked when an engine is loaded. A larger one
would cost its whole length in time and memory where a run may need a few rows of it."""

_DIGEST_LENGTH = 64

Array = NDArray[Any]


class FileTensors(Mapping[str, Array]):
    """Tensors by name, mapped read-only. Reading one for the first time checks its digest.

    mapped : the same without any check, for what needs types and shapes alone.
    """

    def __init__(self, file: str, mapped: Mapping[str, Array], digests: Mapping[str, str]) -> None:
        self.mapped = mapped
        self._file, self._digests = file, digests
        self._checked: set[str] = set()

    def __getitem__(self, name: str) -> Array:
        """The tensor; raises EngineFileError where its bytes are not those that were written."""
        array = self.mapped[name]
        if name not in self._checked:
            digest = digest_of(array)
            if digest != self._digests[name]:
                raise EngineFileError(
                    f"{self._file}: field 'header.{name}': expected the bytes that were written, of SHA-256 "
                    f"{self._digests[name]}, found {digest}: the file is damaged or was altered."
                )
            self._checked.add(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.mapped)

    def __len__(self) -> int:
        return len(self.mapped)

    def table(self, name: str) -> Array:
        """A tensor that is read row by row: checked as the others up to LARGEST_CHECKED_TABLE bytes, else
        not."""
        array = self.mapped[name]
        return self[name] if array.nbytes <= LARGEST_CHECKED_TABLE else array

    def verify(self) -> None:
        """Check every tensor, large tables too; raises EngineFileError for the first that was altered."""
        with ThreadPoolExecutor(physical_cores()) as pool:
            for _ in pool.map(self.__getitem__, self.mapped):
                pass


def table(tensors: Mapping[str, Array], name: str) -> Array:
    """A tensor that steps read row by row, of an engine file or of tensors in memory."""
    return tensors.table(name) if isinstance(tensors, FileTensors) else tensors[name]


def digest_of(array: Array) -> str:
    """SHA-256 of an array's bytes in C order, in lowercase hexadecimal."""
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def read_tensors(
    header: Field, members: Mapping[str, Field], digests: Field, data: memoryview
) -> FileTensors:
    """The tensors that a header lists, as views of the bytes after it.

    header : the whole, for messages. members : its entries but the metadata. digests : SHA-256 by tensor.
    data : the bytes; the entries must cover them without a hole, in order, and what pads them is zero.
    Raises EngineFileError naming the field.
    """
    mapped = {}
    offset = 0
    for name, entry in members.items():
        array = _read_tensor(entry, data, offset)
        offset += array.nbytes
        if not name.startswith(PADDING):
            mapped[name] = array
        elif array.nbytes >= ALIGNMENT or array.any():
            entry.refuse(f"fewer than {ALIGNMENT} bytes of padding, all of them zero")
    if offset != len(data):
        header.refuse(f"tensors that fill the {len(data)} bytes after the header, not {offset}")
    said = digests.object(frozenset(mapped))
    return FileTensors(header.file, mapped, {name: _digest(item) for name, item in said.items()})


def _digest(item: Field) -> str:
    text = item.text(longest=_DIGEST_LENGTH)
    if len(text) != _DIGEST_LENGTH or not set(text) <= set("0123456789abcdef"):
        item.refuse(f"a SHA-256 digest of {_DIGEST_LENGTH} hexadecimal digits")
    return text


def _read_tensor(entry: Field, data: memoryview, offset: int) -> Array:
    fields = entry.object(frozenset({"dtype", "shape", "data_offsets"}))
    dtype = DTYPES[fields["dtype"].choice(tuple(DTYPES))]
    shape = tuple(dim.integer(1, len(data)) for dim in fields["shape"].items())
    if len(shape) > 8:
        fields["shape"].refuse("at most 8 dimensions")
    end = offset + math.prod(shape) * dtype.itemsize
    if fields["data_offsets"].value != [offset, end] or end > len(data):
        fields["data_offsets"].refuse(f"[{offset}, {end}] within the {len(data)} bytes of the tensors")
    if offset % ALIGNMENT and not entry.path.startswith(f"header.{PADDING}"):
        fields["data_offsets"].refuse(f"a start on a multiple of {ALIGNMENT}")
    flat: Array = np.frombuffer(data, dtype, math.prod(shape), offset)
    return flat.reshape(shape)
