"""What a row of the table of operators says: slots, attributes, shapes, traits, and checks of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from openwork.engine.dtypes import FLOATS
from openwork.engine.operators.attribute import Attribute
from openwork.engine.shapes import Letters, Partial, Words

DOMAIN = "openwork"
VERSION = 1

Item = TypeVar("Item")


@dataclass(frozen=True)
class Slot:
    """One input or output of an operator.

    dtypes : the element types it may have. Of several it has an integer type exactly where `scale` is among
    the attributes; without a `scale`, the one type that all such slots of the node have, or u8 where
    `quantizer` is among the attributes.
    shape : the words of `openwork.engine.shapes`.
    optional : whether it may be absent. needs : the slots and attributes without which it cannot be there;
    one that is not optional is there exactly where they are.
    tensor : an initializer, stored in the engine. variadic : any number of values from 1 on; the last input.
    indexes : the tensor whose rows its integers number. cuts : the slot whose elements its integers cut into
    parts: where each begins. may_be_zero : the letter of its shape that may stand for 0; nothing else is
    empty.
    """

    name: str
    dtypes: tuple[str, ...]
    shape: Words
    optional: bool = False
    tensor: bool = False
    scale: str = ""
    needs: tuple[str, ...] = ()
    variadic: bool = False
    indexes: str = ""
    cuts: str = ""
    quantizer: str = ""
    may_be_zero: str = ""

    def dtypes_with(self, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """The types that remain where a node has these attributes."""
        if self.quantizer in attributes:
            return ("u8",)
        if not self.scale:
            return self.dtypes
        quantized = self.scale in attributes
        return tuple(dtype for dtype in self.dtypes if (dtype not in FLOATS) == quantized)


class Problem(NamedTuple):
    """What is wrong with a node: the slot or attribute, what it must be, and what it is."""

    place: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"'{self.place}' must be {self.expected}, but it is {self.found}"


class Operand(NamedTuple):
    """A value or tensor as a node has it; None for what is not known."""

    dtype: str | None = None
    shape: Partial | None = None
    stored: bool = False


@dataclass(frozen=True)
class Form:
    """One node as the contract sees it: its attributes, and its slots with what stands there (or None).

    A variadic slot stands once for each of its values.
    """

    attributes: Mapping[str, Any]
    inputs: Sequence[tuple[Slot, Operand | None]]
    outputs: Sequence[tuple[Slot, Operand | None]] = ()

    def given(self, name: str) -> list[Operand]:
        """What stands in the input of this name: nothing, one, or all values of a variadic one."""
        return [operand for slot, operand in self.inputs if slot.name == name and operand is not None]

    def has(self, name: str) -> bool:
        """Whether a slot or an attribute of this name is there."""
        pairs = (*self.inputs, *self.outputs)
        return name in self.attributes or any(slot.name == name and held is not None for slot, held in pairs)


Check = Callable[[Form, Letters], Problem | None]
"""A condition of one row's own, read after the inputs are matched."""


@dataclass(frozen=True)
class Operator:
    """One operator: the row that the verifier, the lowering, the loader and the binding read.

    inputs : in ONNX order, tensors among them; a variadic one last.
    derive : binds those letters of the outputs that no input has as they stand. checks : further conditions.
    weighted : the slot of the weight whose patterns and tactics the builder chooses, or "".
    epilogue : whether what follows may go into it (bias, activation, residual, as far as it has the slots).
    dynamic : whether its first input is quantized by the range that it has when the program runs.
    layout : how the dimensions of its values must lie: "any" where it works element by element, "rows" where
    the last one is its own, "channels last" where an image must stand as [B, H, W, C].
    view : whether its output is its first input under another shape.
    """

    name: str
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    attributes: tuple[Attribute, ...] = ()
    derive: Check | None = None
    checks: tuple[Check, ...] = ()
    weighted: str = ""
    epilogue: bool = False
    dynamic: bool = False
    layout: str = "rows"
    view: bool = False

    @property
    def activations(self) -> tuple[Slot, ...]:
        """The inputs that are values of the program."""
        return tuple(slot for slot in self.inputs if not slot.tensor)

    @property
    def tensors(self) -> tuple[Slot, ...]:
        """The inputs that are initializers."""
        return tuple(slot for slot in self.inputs if slot.tensor)

    def attribute(self, name: str) -> Attribute | None:
        """The attribute of this name, or None."""
        return next((attribute for attribute in self.attributes if attribute.name == name), None)

    def input_index(self, name: str) -> int | None:
        """The place of the input slot of this name; None where there is none."""
        return next((index for index, slot in enumerate(self.inputs) if slot.name == name), None)

    def output_index(self, name: str) -> int | None:
        """The place of the output of this name; None where there is none."""
        return next((index for index, slot in enumerate(self.outputs) if slot.name == name), None)

    def takes(self, *names: str) -> bool:
        """Whether the operator has an input slot or an attribute of each of these names."""
        return all(self.input_index(n) is not None or self.attribute(n) is not None for n in names)


def pair(slots: Sequence[Slot], items: Sequence[Item | None]) -> list[tuple[Slot, Item | None]] | None:
    """Each slot with its item, those at the end that are missing as None, a variadic slot with each of its
    own; None where there are more items than slots."""
    variadic = bool(slots) and slots[-1].variadic
    if len(items) > len(slots) and not variadic:
        return None
    spread = [*slots, *[slots[-1]] * (len(items) - len(slots))] if variadic else list(slots)
    return list(zip(spread, [*items, *[None] * (len(spread) - len(items))], strict=True))
