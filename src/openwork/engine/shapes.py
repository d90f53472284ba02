"""Matching the shapes of one step against its operator's row in the table of `openwork.engine.operators`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from openwork.engine.operators import OPERATORS, Operator, Slot
from openwork.engine.operators import operator as _operator

Dim = int | str
Shape = tuple[Dim, ...]
Same = Callable[[Dim, Dim], bool]


def step_name(operator: str) -> str:
    """The name of a program's step for an operator: "EmbeddingSum" is "embedding_sum"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operator).lower()


OPERATOR_OF_STEP = {step_name(name): name for name in OPERATORS}


def operator_of(step: str, attributes: Mapping[str, object]) -> Operator:
    """The row of a step's operator; attention has two, told apart by its attribute `packed`."""
    found = _operator(OPERATOR_OF_STEP[step], packed=bool(attributes.get("packed")))
    if found is None:
        raise ValueError(f"The step '{step}' has no operator in the table.")
    return found


def slot_dtype(slot: Slot, attributes: Mapping[str, object]) -> str:
    """The one type of a slot; where it may be f32 or u8 it is u8 exactly if the step has its scale."""
    if len(slot.dtypes) == 1:
        return slot.dtypes[0]
    return "u8" if attributes.get(slot.scale) is not None else "f32"


class Letters:
    """What the letters of one step's shapes stand for, found by matching its inputs and tensors.

    same : whether two dimensions are equal; the builder lets it equate free dimensions, the loader only
    compares.
    """

    def __init__(self, same: Same) -> None:
        self._same = same
        self._bound: dict[str, Dim] = {}
        self._leading: Shape | None = None

    def match(self, letters: tuple[str, ...], shape: Shape) -> bool:
        """Whether `shape` agrees with `letters` and with everything matched before."""
        open_front = letters[:1] == ("...",)
        letters = letters[open_front:]
        split = len(shape) - len(letters)
        if split < 0 or (split and not open_front):
            return False
        if open_front and not self._match_leading(shape[:split]):
            return False
        return all(
            self._match_letter(letter, dim) for letter, dim in zip(letters, shape[split:], strict=True)
        )

    def fill(self, letters: tuple[str, ...]) -> Shape:
        """The shape that `letters` stand for, once the inputs and tensors have been matched."""
        open_front = letters[:1] == ("...",)
        leading = (self._leading or ()) if open_front else ()
        return (*leading, *(self._bound[letter] for letter in letters[open_front:]))

    def _match_leading(self, shape: Shape) -> bool:
        if self._leading is None:
            self._leading = shape
        return len(shape) == len(self._leading) and all(
            self._same(a, b) for a, b in zip(self._leading, shape, strict=True)
        )

    def _match_letter(self, letter: str, dim: Dim) -> bool:
        if letter[0] == "3":
            if not isinstance(dim, int) or dim % 3:
                return False
            letter, dim = letter[1:], dim // 3
        return self._same(self._bound.setdefault(letter, dim), dim)
