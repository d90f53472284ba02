"""The operators of docs/program.md as data: the one contract that verifying, lowering, loading and binding
read."""

from __future__ import annotations

import re
from functools import cache

from openwork.engine.operators.activations import ACTIVATIONS, operator_of_activation
from openwork.engine.operators.attribute import Attribute
from openwork.engine.operators.contract import (
    DOMAIN,
    VERSION,
    Form,
    Operand,
    Operator,
    Problem,
    Slot,
    pair,
)
from openwork.engine.operators.examination import attribute_problem, examine, infer, output_dtype
from openwork.engine.operators.rows import OPERATORS

__all__ = [
    "ACTIVATIONS",
    "DOMAIN",
    "OPERATORS",
    "VERSION",
    "Attribute",
    "Form",
    "Operand",
    "Operator",
    "Problem",
    "Slot",
    "attribute_problem",
    "examine",
    "infer",
    "operator_of_activation",
    "output_dtype",
    "pair",
    "row_of_step",
    "step_name",
    "step_names",
]


@cache
def step_name(operator: str) -> str:
    """The name of a program's step for an operator: "EmbeddingSum" is "embedding_sum"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", operator).lower()


def step_names() -> tuple[str, ...]:
    """The names of all operators' steps, in the table's order."""
    return tuple(map(step_name, OPERATORS))


def row_of_step(step: str) -> Operator | None:
    """The row of a step's operator; None for a name that is none."""
    return next((row for name, row in OPERATORS.items() if step_name(name) == step), None)
