"""The attributes of operators: what each may be, once for the graph, the lowering and the loader."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_NORMAL, LARGEST = 1.1754944e-38, 3.4028235e38
"""Of binary32: a scale is divided by, so it is no subnormal number."""
SMALLEST = 1.401298464324817e-45
"""The smallest positive binary32 number."""


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name, its kind ("float", "int", "ints", "flag" or "string"), and what it may be.

    low, high : the range of a number, or of each of several integers, ends included. choices : of a string.
    optional : whether it may be absent. needs : the slots and attributes without which it means nothing.
    fewest, most : how many integers there may be.
    """

    name: str
    kind: str
    low: float = -LARGEST
    high: float = LARGEST
    choices: tuple[str, ...] = ()
    optional: bool = False
    needs: tuple[str, ...] = ()
    fewest: int = 0
    most: int = 0

    @property
    def expected(self) -> str:
        """What the attribute must be, as it follows "must be" in a message."""
        if self.kind == "string":
            return "one of " + ", ".join(self.choices)
        if self.kind == "float":
            return f"a number from {self.low:g} to {self.high:g}"
        if self.kind == "ints":
            count = f"{self.most}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
            return f"{count} integers from {int(self.low)} to {int(self.high)}"
        return f"an integer from {int(self.low)} to {int(self.high)}"

    def accepts(self, value: object) -> bool:
        """Whether a value has the kind and lies in the range; a Boolean is no number."""
        if self.kind == "string":
            return isinstance(value, str) and value in self.choices
        if self.kind == "ints":
            if not isinstance(value, list | tuple) or not self.fewest <= len(value) <= self.most:
                return False
            return all(self._in_range(item) for item in value)
        return self._in_range(value)

    def _in_range(self, value: object) -> bool:
        number = (int, float) if self.kind == "float" else (int,)
        return isinstance(value, number) and not isinstance(value, bool) and self.low <= value <= self.high


def number(
    name: str, low: float = -LARGEST, *, optional: bool = False, needs: tuple[str, ...] = ()
) -> Attribute:
    """A finite binary32 number of at least `low`."""
    return Attribute(name, "float", low, optional=optional, needs=needs)


def positive(name: str) -> Attribute:
    """A positive finite binary32 number."""
    return number(name, SMALLEST)


def integer(
    name: str, low: int, high: int, *, optional: bool = False, needs: tuple[str, ...] = ()
) -> Attribute:
    """An integer in [low, high]."""
    return Attribute(name, "int", low, high, optional=optional, needs=needs)


def integers(
    name: str, count: int | tuple[int, int], low: int, high: int, *, optional: bool = False
) -> Attribute:
    """So many integers in [low, high], or any number of them from the first to the second of two counts."""
    fewest, most = (count, count) if isinstance(count, int) else count
    return Attribute(name, "ints", low, high, optional=optional, fewest=fewest, most=most)


def flag(name: str, *, needs: tuple[str, ...] = ()) -> Attribute:
    """0 or 1; absent means 0."""
    return Attribute(name, "flag", 0, 1, optional=True, needs=needs)


def scale(name: str, *, optional: bool = False, needs: tuple[str, ...] = ()) -> Attribute:
    """A positive finite number that is not subnormal."""
    return number(name, SMALLEST_NORMAL, optional=optional, needs=needs)


def quantizer(
    value: str, *, optional: bool = True, needs: tuple[str, ...] = ()
) -> tuple[Attribute, Attribute]:
    """The scale and zero point of a u8 value: both, or neither."""
    first, second = f"{value}_scale", f"{value}_zero_point"
    return (
        scale(first, optional=optional, needs=(*needs, second) if optional else needs),
        integer(second, 0, 255, optional=optional, needs=(first,) if optional else ()),
    )
