"""Finding the tensors that a program's steps name, and the logical shapes of compressed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from openwork.engine.shapes import Dim, Shape
from openwork.patterns.bitmap import Bitmap, mask
from openwork.patterns.compressed import shapes
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.patterns.stored import names
from openwork.support.fields import EngineFileError, Field, shown

Tensors = Mapping[str, NDArray[Any]]

_DTYPE_NAMES = {np.dtype("u1"): "u8", np.dtype("i1"): "s8", np.dtype("<f4"): "f32"}


@dataclass(frozen=True)
class Lookup:
    """Finds the tensors that steps name and notes which were named (openwork.engine.program.TensorShape)."""

    tensors: Tensors
    used: set[str]

    def __call__(self, item: Field, pattern: str | None, width: Dim) -> tuple[str, Shape]:
        name = item.text()
        if pattern is None:
            array = self._find(item, name)
            return _DTYPE_NAMES[array.dtype], array.shape
        return "s8", self._compressed(item, name, _pattern(item, pattern), width)

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
        if isinstance(pattern, GroupPattern):
            _check_groups(item, pattern, values, places, width)
        elif isinstance(pattern, BlockPattern):
            _check_blocks(item, pattern, Bitmap(places, values, width))
        return places.shape[0], width


def _check_groups(
    item: Field, pattern: GroupPattern, values: NDArray[Any], indices: NDArray[Any], width: int
) -> None:
    """The types and shapes of the N:M form; its positions are checked where they are read."""
    if values.ndim != 2 or values.dtype != np.int8 or indices.dtype != np.uint8:
        _refuse(item, "s8 values [n, kept] and u8 indices [n, bytes]", f"{values.dtype}, {indices.dtype}")
    try:
        expected = shapes(values.shape[0], width, pattern.kept, pattern.group)
    except ValueError as error:
        _refuse(item, "a compressed weight", str(error))
    if (values.shape, indices.shape) != expected:
        _refuse(item, f"values and indices of {expected}", f"{values.shape}, {indices.shape}")


def _check_blocks(item: Field, pattern: BlockPattern, weight: Bitmap) -> None:
    """Everything about a bitmap: its shape follows from its bits."""
    try:
        kept = mask(weight)
    except ValueError as error:
        _refuse(item, "a compressed weight", str(error))
    # Before a block much larger than the weight is filled up with padding.
    if pattern.rows > kept.shape[0] or pattern.columns > kept.shape[1]:
        _refuse(item, f"blocks within a weight of {list(kept.shape)}", str(pattern))
    if not pattern.holds(kept):
        _refuse(item, f"a weight that keeps to its pattern {pattern}", str(pattern.violations(kept)[0]))


def _pattern(item: Field, text: str) -> Pattern:
    try:
        return Pattern.parse(text)
    except ValueError as error:
        _refuse(item, "the name of a pattern", str(error))


def _refuse(item: Field, expected: str, found: str) -> NoReturn:
    raise EngineFileError(f"{item.file}: field '{item.path}': expected {expected}, found {shown(found)}.")
