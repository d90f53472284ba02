"""Tensors that several steps store alike, under one name.

A model that uses one layer many times, or ties a table to the layer behind it, has one initializer for all.
The rules make tensors of their own for each step (scales multiplied in, queries, keys and values side by
side), and exporters write copies: what is equal is found at the end, by its contents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.engine.file_tensors import digest_of
from openwork.engine.program import Program, Step
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import names

Tensors = Mapping[str, NDArray[Any]]


def share(program: Program, tensors: Tensors) -> Program:
    """The program with one name, the first, for tensors of the same type, shape, form and bytes."""
    contents = _Contents(tensors)
    first: dict[tuple[Any, ...], str] = {}
    steps = [_renamed(step, contents, first) for step in program.steps]
    return replace(program, steps=tuple(steps))


def parts_of(step: Step, slot: str) -> tuple[str, ...]:
    """The names under which the tensor of a step's slot is stored: two for a compressed weight."""
    pattern = None if step.pattern is None or slot != "weight" else Pattern.parse(step.pattern)
    return names(step.tensors[slot], pattern)


def _renamed(step: Step, contents: _Contents, first: dict[tuple[Any, ...], str]) -> Step:
    kept = {}
    for slot, name in step.tensors.items():
        parts = parts_of(step, slot)
        form = (len(parts), step.pattern if len(parts) > 1 else None)
        kept[slot] = first.setdefault((*form, *map(contents.key, parts)), name)
    return replace(step, tensors=kept)


class _Contents:
    """What tells a tensor from others: its bytes' digest only where another one has its type and shape."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._alike = Counter(self._kind(array) for array in tensors.values())
        self._keys: dict[str, tuple[Any, ...]] = {}

    def key(self, name: str) -> tuple[Any, ...]:
        if name not in self._keys:
            array = self._tensors[name]
            alone = self._alike[self._kind(array)] == 1
            told = name if alone else digest_of(np.ascontiguousarray(array))
            self._keys[name] = (*self._kind(array), told)
        return self._keys[name]

    @staticmethod
    def _kind(array: NDArray[Any]) -> tuple[str, tuple[int, ...]]:
        return array.dtype.str, array.shape
