"""Random nodes of the operators, made by their rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import Attribute, Form, Operand, Operator, Slot
from openwork.engine.operators.windows import axes
from openwork.graph.reference import MEANING


class Sample:
    """A random node of one row: attributes in their ranges, arrays of the shapes that the row asks for."""

    def __init__(self, row: Operator, rng: np.random.Generator) -> None:
        self.row, self.rng = row, rng
        self.count = int(rng.integers(1, 4))
        self.kind = ("f32", "u8")[rng.integers(2)]
        fewest = int(any(slot.variadic for slot in row.inputs))
        self.leading = tuple(int(size) for size in rng.integers(1, 4, rng.integers(fewest, 3)))
        self.sizes = {letter: int(rng.integers(1, 7)) for letter in "ABCIKLNPTVW"}
        self.groups = 1
        self.sizes |= {"H": 6, "L": 3, "I": self.count, "P": int(rng.integers(3, 6))}
        if {"H", "W"} <= {word for slot in row.inputs for word in slot.shape}:
            self.sizes |= self._image()
        self.attributes = self._attributes()
        self.sizes |= self._windows()
        self.arrays = self._arrays()

    def _image(self) -> dict[str, int]:
        """An image, and a weight for it: each of its groups has G input channels and some outputs."""
        self.groups, each, outputs = (int(size) for size in self.rng.integers(1, 4, 3))
        height, width = (int(size) for size in self.rng.integers(8, 12, 2))
        sizes = {"C": self.groups * each, "G": each, "N": self.groups * outputs}
        return {**sizes, "H": height, "W": width}

    def _windows(self) -> dict[str, int]:
        """The height and width of what windows over an image make."""
        if "strides" not in self.attributes:
            return {}
        found = axes(self.attributes)
        made = {word: axis.made(self.sizes[of]) for word, of, axis in zip("PQ", "HW", found, strict=True)}
        return {**made, **dict(zip("RS", self.attributes["kernel"], strict=True))}

    def _attributes(self) -> dict[str, Any]:
        """Optional ones by groups: an attribute comes with all that it needs."""
        groups = {"x": self.rng.random() < 0.5, "y": self.rng.random() < 0.5}
        values = {}
        for attribute in self.row.attributes:
            group = attribute.name.partition("_")[0]
            if not attribute.optional or groups.get(group, False):
                values[attribute.name] = self._value(attribute)
        if "alpha" in values and "beta" in values:
            values["alpha"], values["beta"] = sorted((values["alpha"], values["beta"]))
        return values

    def _value(self, attribute: Attribute) -> Any:
        if attribute.kind == "string":
            return "relu"
        if attribute.kind == "float":
            return float(self.rng.uniform(0.1, 2.0))
        if attribute.kind == "ints":
            low = int(attribute.low)
            return [int(number) for number in self.rng.integers(low, low + 3, attribute.count)]
        divisors = {"groups": self.groups, "heads": 3, "axis": len(self.leading) - 1}
        high = min(int(attribute.high), 255)
        return divisors.get(attribute.name, int(self.rng.integers(int(attribute.low), high + 1)))

    def _arrays(self) -> list[tuple[Slot, Any]]:
        made = []
        packed = self.row.name == "Attention" and self.rng.random() < 0.5
        if self.row.name == "Attention":
            self.sizes["Q"] = self.sizes["H"] * (3 if packed else 1)
        present: set[str] = {*self.attributes}
        for slot in self.row.inputs:
            wanted = not slot.optional or self.rng.random() < 0.5
            if slot.name in ("k", "v"):
                wanted = not packed
            elif any(name not in present for name in slot.needs):
                wanted = False
            elif slot.dtypes == ("u8",) and slot.tensor:
                wanted &= self.kind == "u8"
            if wanted:
                present.add(slot.name)
            for _ in range(self.count if slot.variadic else 1):
                made.append((slot, self._array(slot) if wanted else None))
        return made

    def _array(self, slot: Slot) -> Any:
        shape = self.shape(slot)
        free = len(slot.dtypes) > 1 and not slot.scale
        dtype = DTYPES[self.kind if free else slot.dtypes_with(self.attributes)[0]]
        if dtype.kind == "f":
            return self.rng.uniform(0.1, 1.0, shape).astype(dtype)
        return self.rng.integers(0, 1 if slot.indexes else 100, shape).astype(dtype)

    def shape(self, slot: Slot) -> tuple[int, ...]:
        if slot.shape == ("*",):
            return self.leading
        sizes = (
            self.leading if word == "..." else (int(word) if word.isdigit() else self.sizes[word],)
            for word in slot.shape
        )
        return tuple(size for part in sizes for size in part)

    def form(self) -> Form:
        names = {dtype: name for name, dtype in DTYPES.items()}
        inputs = [
            (slot, None if array is None else Operand(names[array.dtype], array.shape, slot.tensor))
            for slot, array in self.arrays
        ]
        return Form(self.attributes, inputs)

    def results(self) -> tuple[Any, ...]:
        values = MEANING[self.row.name](*(array for _, array in self.arrays), self.attributes)
        return values if isinstance(values, tuple) else (values,)
