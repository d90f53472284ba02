"""Finding the tensors that a program's steps name, and the logical shapes of compressed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from openwork.engine.dtypes import stored_dtype_name
from openwork.engine.shapes import Dim, Shape
from openwork.patterns.bitmap import WEIGHT_TYPES
from openwork.patterns.compressed import shapes
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.patterns.stored import is_grouped, names
from openwork.support.fields import EngineFileError, Field, shown

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Lookup:
    """Finds the tensors that steps name and notes which were named (openwork.engine.program.TensorShape)."""

    tensors: Tensors
    used: set[str]

    def __call__(self, item: Field, pattern: str | None, width: Dim) -> tuple[str, Shape]:
        name = item.text()
        if pattern is None:
            array = self._find(item, name)
            return stored_dtype_name(array.dtype), array.shape
        found = _pattern(item, pattern)
        shape = self._compressed(item, name, found, width)
        return stored_dtype_name(self.tensors[names(name, found)[0]].dtype), shape

    def _find(self, item: Field, name: str) -> NDArray[Any]:
        if name not in self.tensors:
            _refuse(item, "the name of a tensor of the file", name)
        self.used.add(name)
        return self.tensors[name]

    def _compressed(self, item: Field, name: str, pattern: Pattern, width: Dim) -> Shape:
        """The logical shape [n, k] of a weight stored in two arrays."""
        values, places = (self._find(item, part) for part in names(name, pattern))
        if not isinstance(width, int):
            _refuse(item, "a compressed weight only where the step's input has a fixed width", name)
        if is_grouped(pattern):
            _check_groups(item, pattern, values, places, width)
        else:
            _check_bitmap(item, values, places, width)
        _check_size(item, pattern, places.shape[0], width)
        return places.shape[0], width


def _check_groups(
    item: Field, pattern: GroupPattern, values: NDArray[Any], indices: NDArray[Any], width: int
) -> None:
    """The types and shapes of the N:M form; its positions are checked where they are read."""
    if values.ndim != 2 or values.dtype not in WEIGHT_TYPES or indices.ndim != 2 or indices.dtype != np.uint8:
        found = f"{values.dtype} {list(values.shape)}, {indices.dtype} {list(indices.shape)}"
        _refuse(item, "s8, bf16 or f32 values [n, kept] and u8 indices [n, bytes]", found)
    try:
        expected = shapes(values.shape[0], width, pattern.kept, pattern.group)
    except ValueError as error:
        _refuse(item, "a compressed weight", str(error))
    if (values.shape, indices.shape) != expected:
        _refuse(item, f"values and indices of {expected}", f"{values.shape}, {indices.shape}")


def _check_bitmap(item: Field, values: NDArray[Any], bits: NDArray[Any], width: int) -> None:
    """The types and shapes of a bitmap; its bits are counted where they are read."""
    if values.ndim != 1 or values.dtype not in WEIGHT_TYPES or bits.ndim != 2 or bits.dtype != np.uint8:
        found = f"{values.dtype} {list(values.shape)}, {bits.dtype} {list(bits.shape)}"
        _refuse(item, "s8, bf16 or f32 values [bits set] and a u8 bitmap [n, bytes]", found)
    if bits.shape[1] != -(-width // 8) or width < 1:
        _refuse(item, f"a bitmap [n, {-(-width // 8)}] for {width} input channels", str(list(bits.shape)))


def _check_size(item: Field, pattern: Pattern, height: int, width: int) -> None:
    """Blocks no larger than the weight: one much larger would be filled up with padding."""
    if isinstance(pattern, BlockPattern) and (pattern.rows > height or pattern.columns > width):
        _refuse(item, f"blocks within a weight of {[height, width]}", str(pattern))


def _pattern(item: Field, text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except ValueError as error:
        _refuse(item, "the name of a pattern", str(error))


def _refuse(item: Field, expected: str, found: str) -> NoReturn:
    raise EngineFileError(f"{item.file}: field '{item.path}': expected {expected}, found {shown(found)}.")
