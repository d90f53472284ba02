"""Finding the tensors that a program's steps name, and the logical shapes of compressed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from openwork.fields import EngineFileError, Field, shown
from openwork.shapes import Dim, Shape
from openwork.sparsity import GroupPattern, Pattern
from openwork.sparsity.compressed import shapes

Tensors = Mapping[str, NDArray[Any]]

_DTYPE_NAMES = {np.dtype("u1"): "u8", np.dtype("i1"): "s8", np.dtype("<f4"): "f32"}


@dataclass(frozen=True)
class Lookup:
    """Finds the tensors that steps name and notes which were named (openwork.program.TensorShape)."""

    tensors: Tensors
    used: set[str]

    def __call__(self, item: Field, pattern: str | None, width: Dim) -> tuple[str, Shape]:
        name = item.text()
        if pattern is None:
            array = self._find(item, name)
            return _DTYPE_NAMES[array.dtype], array.shape
        return "s8", self._compressed(item, name, pattern, width)

    def _find(self, item: Field, name: str) -> NDArray[Any]:
        if name not in self.tensors:
            _refuse(item, "the name of a tensor of the file", name)
        self.used.add(name)
        return self.tensors[name]

    def _compressed(self, item: Field, name: str, pattern: str, width: Dim) -> Shape:
        """The logical shape [n, k] of a weight stored as values and indices."""
        values, indices = self._find(item, f"{name}.values"), self._find(item, f"{name}.indices")
        group = _group_pattern(item, pattern)
        if (
            not isinstance(width, int)
            or values.ndim != 2
            or values.dtype != np.int8
            or indices.dtype != np.uint8
        ):
            _refuse(item, "s8 values [n, kept] and u8 indices [n, bytes] for an input of a fixed width", name)
        try:
            expected = shapes(values.shape[0], width, group.kept, group.group)
        except ValueError as error:
            _refuse(item, "a compressed weight", str(error))
        if (values.shape, indices.shape) != expected:
            _refuse(item, f"values and indices of {expected}", f"{values.shape}, {indices.shape}")
        return values.shape[0], width


def _group_pattern(item: Field, text: str) -> GroupPattern:
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        _refuse(item, "the name of an N:M pattern", str(error))
    if not isinstance(pattern, GroupPattern):
        _refuse(item, "a weight compressed by an N:M pattern", text)
    return pattern


def _refuse(item: Field, expected: str, found: str) -> NoReturn:
    raise EngineFileError(f"{item.file}: field '{item.path}': expected {expected}, found {shown(found)}.")
