"""`python -m openwork.engine.operators` prints the operators as a table in Markdown."""

from __future__ import annotations

from openwork.engine.operators.contract import Operator, Slot
from openwork.engine.operators.rows import OPERATORS

HEADER = (
    "| operator | inputs | outputs | tensors (initializers) | attributes |",
    "|---|---|---|---|---|",
)


def table() -> str:
    """A line for each row: slots with their types and shapes, attributes by name."""
    return "\n".join((*HEADER, *map(_line, OPERATORS.values())))


def _line(row: Operator) -> str:
    slots = ("; ".join(map(_slot, slots)) for slots in (row.activations, row.outputs, row.tensors))
    attributes = ", ".join(f"`{attribute.name}`" for attribute in row.attributes)
    return f"| {' | '.join((f'`{row.name}`', *slots, attributes))} |"


def _slot(slot: Slot) -> str:
    shape = ",".join(slot.shape).replace("...", "..")
    optional = [" optional"] if slot.optional else []
    needs = [f" with {' and '.join(slot.needs)}"] if slot.needs else []
    told = [*optional, *needs, *([" one or more"] if slot.variadic else [])]
    comma = "," if slot.variadic else ""
    return f"`{slot.name}` {' or '.join(slot.dtypes)} [{shape}]{comma}{','.join(told)}"


if __name__ == "__main__":
    print(table())
