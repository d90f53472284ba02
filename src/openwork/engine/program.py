"""A program as a value: the typed form of the JSON of docs/program.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from openwork.engine.shapes import Shape

FALLBACK = "fallback"
MODEL = "model"
"""The tensor of a fallback step that is its ONNX model."""
MOST_AXES = 8
"""Of a value."""


def data_slot(number: int) -> str:
    """The slot of the tensor of this number that a fallback step has besides its model."""
    return f"data.{number}"


class Value(NamedTuple):
    """One tensor that flows through a program: its type and its shape, an int or a free dimension's name per
    axis."""

    dtype: str
    shape: Shape


class Named(NamedTuple):
    """An input or output of the program: its name and the index of its value."""

    name: str
    value: int


class Choice(NamedTuple):
    """The tactic that runs a linear step up to `max_rows` rows; None is for all larger ones."""

    max_rows: int | None
    tactic: str


@dataclass(frozen=True)
class Step:
    """One operation: indices into the program's values, names of stored tensors, and plain attributes.

    `backend` names the back end that runs it. `pattern` is the pattern whose compressed form
    `tensors["weight"]` is stored in, or None for a dense weight.
    """

    op: str
    name: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    tensors: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    tactics: tuple[Choice, ...] = ()
    backend: str = "cpu"


@dataclass(frozen=True)
class Program:
    """The ordered steps of an engine."""

    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]
    values: tuple[Value, ...]
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of docs/program.md."""
        return {
            "inputs": [named._asdict() for named in self.inputs],
            "outputs": [named._asdict() for named in self.outputs],
            "values": [{"dtype": value.dtype, "shape": list(value.shape)} for value in self.values],
            "steps": [_step_to_json(step) for step in self.steps],
        }


def _step_to_json(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {
        "op": step.op,
        "name": step.name,
        "inputs": list(step.inputs),
        "outputs": list(step.outputs),
        "tensors": dict(step.tensors),
        "attributes": dict(step.attributes),
        "backend": step.backend,
    }
    if step.tactics:
        document["pattern"] = step.pattern
        document["tactics"] = [choice._asdict() for choice in step.tactics]
    return document
