"""Random nodes of the operators, made by their rows alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import Attribute, Form, Operand, Operator, Slot
from openwork.engine.operators.table_rows import BAG_MODES
from openwork.engine.operators.windows import axes
from openwork.graph.reference import MEANING

PADDING_ID = 2


class Sample:
    """A random node of one row: attributes in their ranges, arrays of the shapes that the row asks for."""

    def __init__(self, row: Operator, rng: np.random.Generator) -> None:
        self.row, self.rng = row, rng
        self.count = int(rng.integers(1, 4))
        self.kind = ("f32", "u8")[rng.integers(2)]
        self.other = ("b", "constant")[rng.integers(2)]
        self.leading = self._leading()
        self.sizes = {letter: int(rng.integers(1, 7)) for letter in "ABCDGIKLNPSTV"}
        self.sizes |= {"H": 6, "L": 3, "I": self.count, "P": int(rng.integers(3, 6))}
        self.sizes["W"] = int(rng.integers(5, 9))
        self.groups = 1
        if row.attribute("groups") is not None:
            self.sizes |= self._grouped()
        if row.name == "EmbeddingSum":
            self.sizes["P"] += self.sizes["S"] + PADDING_ID + 1
        self.cut = row.input_index("offsets") is not None and self.rng.random() < 0.5
        self.attributes = self._attributes()
        self.sizes |= self._windows()
        if any(slot.quantizer in self.attributes for slot in row.outputs):
            self.kind = "f32"
        self.arrays = self._arrays()

    def _grouped(self) -> dict[str, int]:
        """The channels of an image and of a weight: each of its groups has G input channels, some outputs."""
        self.groups, each, outputs = (int(size) for size in self.rng.integers(1, 4, 3))
        return {"C": self.groups * each, "G": each, "N": self.groups * outputs}

    def _windows(self) -> dict[str, int]:
        """The height and width of what windows over an image make."""
        if "strides" not in self.attributes:
            return {}
        found = axes(self.attributes)
        made = {word: axis.made(self.sizes[of]) for word, of, axis in zip("PQ", "HW", found, strict=True)}
        return {**made, **dict(zip("RS", self.attributes["kernel"], strict=True))}

    def _leading(self) -> tuple[int, ...]:
        """What "..." and "*" stand for: at times an image, whose pixels may share one."""
        fewest = {"Slice": 2}.get(
            self.row.name, int(any("*" in s.shape and not s.optional for s in self.row.inputs))
        )
        axes = int(self.rng.integers(fewest, 3))
        if self.row.input_index("constant") is not None and self.rng.random() < 0.3:
            axes = 4
        return tuple(int(size) for size in self.rng.integers(1, 4, axes))

    def _attributes(self) -> dict[str, Any]:
        """Optional ones by groups: an attribute comes with all that it needs."""
        names = ("x", "y", "a", "b", "activation", "count", "overhang", "residual", "causal", "kv")
        groups = {name: self.rng.random() < 0.5 for name in names}
        groups["b"] &= self.other == "b"
        values = {}
        for attribute in self.row.attributes:
            group = attribute.name.partition("_")[0]
            if not attribute.optional or groups.get(group, False):
                values[attribute.name] = self._value(attribute)
        if groups["residual"] and self.row.attribute("residual_scale") is not None:
            values |= self._of_residual()
        if self.row.input_index("offsets") is not None:
            values |= self._of_bags()
        if "alpha" in values and "beta" in values:
            values["alpha"], values["beta"] = sorted((values["alpha"], values["beta"]))
        return values

    def _of_residual(self) -> dict[str, Any]:
        """A residual of integers, whose sums may be rounded before it."""
        rounded = self.rng.random() < 0.5
        values = {"residual_scale": 0.05, "residual_zero_point": int(self.rng.integers(256))}
        if rounded:
            values |= {"sum_scale": 0.06, "sum_zero_point": int(self.rng.integers(256)), "activation_last": 1}
        return values

    def _of_bags(self) -> dict[str, Any]:
        """Bags of a mode: columns of ids, or what offsets begin and perhaps end."""
        mode = {"mode": str(self.rng.choice(BAG_MODES))}
        if self.cut:
            self.sizes["N"] += 1
            return mode | ({"include_last": 1} if self.rng.random() < 0.5 else {})
        begin = int(self.rng.integers(0, self.sizes["W"]))
        return mode | {"begin": begin, "end": int(self.rng.integers(begin, self.sizes["W"])) + 1}

    def _integers(self, name: str) -> list[int]:
        """Windows that fit, and what becomes of a shape."""
        if name == "shape":
            return [*(0 for _ in self.leading[:-1]), -1, 1]
        if name == "overhang":
            return [0, 1]
        low, high, count = {
            "kernel": (1, 3, 2),
            "strides": (1, 3, 2),
            "dilations": (1, 2, 2),
            "factors": (1, 3, 2),
            "pads": (1, 2, 6 if self.row.name == "Pad" else 4),
        }[name]
        return [int(number) for number in self.rng.integers(low, high + 1, count)]

    def _value(self, attribute: Attribute) -> Any:
        if attribute.kind == "string":
            return "relu"
        if attribute.kind == "ints":
            return self._integers(attribute.name)
        if attribute.name == "value":
            return float(self.rng.integers(0, 256))
        if attribute.kind == "float":
            return float(self.rng.uniform(0.1, 2.0))
        last = len(self.leading) - 1
        divisors = {
            "heads": 3,
            "kv_heads": (1, 3)[self.rng.integers(2)],
            "axis": last - int(self.row.name == "Slice"),
            "begin": 0,
            "end": 1,
            "padding_id": PADDING_ID,
        }
        divisors["groups"] = self.groups
        high = min(int(attribute.high), 255)
        return divisors.get(attribute.name, int(self.rng.integers(int(attribute.low), high + 1)))

    def _arrays(self) -> list[tuple[Slot, Any]]:
        made = []
        absent = self._attention() if self.row.name == "Attention" else {}
        present: set[str] = {*self.attributes}
        for slot in self.row.inputs:
            wanted = not slot.optional or self.rng.random() < 0.5
            if slot.name in absent:
                wanted = not absent[slot.name]
            elif slot.name == "behind" and "padding_id" in self.attributes:
                wanted = False
            elif slot.name in ("table_scale", "table_zero_point"):
                wanted = self.kind == "u8"
            elif any(name not in present for name in slot.needs):
                wanted = False
            elif slot.name == "residual" and "residual_scale" in self.attributes:
                wanted = True
            elif slot.name in ("b", "constant"):
                wanted = slot.name == self.other
            elif slot.name == "offsets":
                wanted = self.cut
            elif slot.name == "weights":
                wanted &= self.attributes["mode"] == "sum"
            elif slot.dtypes == ("u8",) and slot.tensor and slot.optional:
                wanted &= self.kind == "u8"
            if wanted:
                present.add(slot.name)
            for _ in range(self.count if slot.variadic else 1):
                made.append((slot, self._array(slot) if wanted else None))
        return made

    def _attention(self) -> dict[str, bool]:
        """The sizes of one with or without a past and new keys; which of its slots are absent."""
        heads, size = self.attributes["heads"], 2
        groups = self.attributes.get("kv_heads", heads)
        past, packed = (bool(self.rng.random() < 0.5) for _ in range(2))
        alone = past and packed and bool(self.rng.random() < 0.5)
        new = 0 if alone else self.sizes["L"] if packed else self.sizes["S"]
        width = heads + (2 * groups if packed and not alone else 0)
        self.sizes |= {"D": size, "G": groups, "Q": width * size, "H": heads * size, "K": groups * size}
        self.sizes |= {"T": new + (self.sizes["P"] if past else 0), "b": 1, "h": heads, "l": 1}
        return {"k": packed, "v": packed, "past_k": not past, "past_v": not past}

    def _indices(self, slot: Slot, shape: tuple[int, ...]) -> Any:
        """Rows of a table, or where its bags begin, the last one not always behind all ids."""
        if slot.cuts:
            return np.sort(self.rng.integers(0, self.sizes["T"] + 1, shape))
        return self.rng.integers(0, self.sizes["V"] if slot.indexes == "table" else 1, shape)

    def _array(self, slot: Slot) -> Any:
        shape = self.shape(slot)
        free = len(slot.dtypes) > 1 and not slot.scale
        dtype = DTYPES[self.kind if free else slot.dtypes_with(self.attributes)[0]]
        if dtype.kind == "f":
            return self.rng.uniform(0.1, 1.0, shape).astype(dtype)
        if slot.indexes or slot.cuts:
            return self._indices(slot, shape)
        return self.rng.integers(0, 100, shape).astype(dtype)

    def shape(self, slot: Slot) -> tuple[int, ...]:
        if slot.name == "constant":
            last = (1, *self.leading)[-1]
            return (1,) if last > 2 and self.rng.random() < 0.5 else (last,)
        if slot.name == "b" and len(self.leading) == 4 and self.rng.random() < 0.5:
            return (self.leading[0], 1, 1, self.leading[3])
        if self.row.input_index("offsets") is not None and slot.shape == ("*",):
            return (self.sizes["T"],) if self.cut else (self.sizes["B"], self.sizes["W"])
        if self.row.name == "Interaction":
            vectors = () if self.rng.random() < 0.5 else (int(self.rng.integers(1, 5)),)
            return (self.sizes["B"], *vectors, self.sizes["H"])
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
