"""What shapes a native step makes of the shapes that it reads, as its operator's row says them."""

from __future__ import annotations

from collections.abc import Sequence

from openwork.engine.operators import Form, Operand, infer, pair, row_of_step
from openwork.engine.program import Step, Value
from openwork.engine.shapes import Partial


def made_shapes(step: Step, shapes: Sequence[Partial]) -> dict[int, Partial | None]:
    """By the number of each value that a native step makes, its shape; None where not even the rank follows.

    step : whose operator has a row. shapes : of the values that it reads, in their order.
    A dimension is None that follows from stored tensors, or from free ones by more than their name.
    """
    row = row_of_step(step.op)
    if row is None:
        return {}
    there = [slot for slot, index in pair(row.activations, step.inputs) or () if index is not None]
    given = [(slot, Operand(None, shape)) for slot, shape in zip(there, shapes, strict=True)]
    made = infer(row, Form(step.attributes, given))
    return {index: shape for index, shape in zip(step.outputs, made, strict=False) if index is not None}


def names_of_made_sizes(step: Step, values: Sequence[Value]) -> set[str]:
    """The free dimensions that a native step gives a size: those of what it makes that no input's name is."""
    read = [values[index].shape for index in step.inputs if index is not None]
    found: set[str] = set()
    for index, shape in made_shapes(step, read).items():
        said = values[index].shape
        known = [None] * len(said) if shape is None else shape
        found |= {
            dim for dim, size in zip(said, known, strict=False) if isinstance(dim, str) and size is None
        }
    return found
