"""From a reduced model to a program: each openwork node becomes one step, everything else a fallback step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.backends.backend import Backend
from openwork.backends.registry import backends as known_backends
from openwork.builder.stages import Placed, Stage, boundary, model_of, place, split
from openwork.engine.operators import Form, Operand, Problem, Slot, examine, output_dtype, step_name
from openwork.engine.problem import Tactic
from openwork.engine.program import FALLBACK, MODEL, MOST_AXES, Choice, Named, Program, Step, Value, data_slot
from openwork.engine.shapes import Dim, Partial, Shape
from openwork.graph.model import carrier, constant, describe, dims, is_openwork, operand_of
from openwork.graph.rewrite import origins
from openwork.graph.slots import form_of, row_of

ELEMENTS = {"s8": "i8", "f32": "f32"}
"""What a product with weights of a type multiplies, as tactics name it."""


class BuildError(ValueError):
    """A model that cannot become an engine; the message says which node and why."""


class CrossingError(BuildError):
    """A value that cannot pass from one step to another, though one step could hold all that handles it."""


@dataclass(frozen=True)
class Fallback:
    """What one stage leaves to another back end than the first: the name of its step, or of its first one,
    and the nodes, as messages name them, with the reason of each."""

    step: str
    backend: Backend
    nodes: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Lowered:
    """A program whose linear steps are all dense, its tensors, and its fallback steps.

    origins : by the name of a native step, the names of the model's nodes that it stands for. stages : the
    names of the native steps that run without another back end in between. names : of the program's values,
    as the graph has them.
    """

    program: Program
    tensors: dict[str, NDArray[Any]]
    fallbacks: tuple[Fallback, ...]
    origins: Mapping[str, frozenset[str]]
    stages: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]


def lower(model: ir.Model, backends: Sequence[Backend] | None = None) -> Lowered:
    """Turn a reduced model into a program, each node a step of the first back end that runs it.

    backends : in the order in which they are asked; default all.
    Raises BuildError where the model holds something that no step can express.
    """
    backends = known_backends() if backends is None else backends
    placed = {node: place(node, backends) for node in model.graph}
    kinds = {node: found.backend for node, found in placed.items() if found.backend is not None}
    for node, found in placed.items():
        if found.backend is None:
            raise BuildError(f"No back end runs {describe(node)}: {'; '.join(found.reasons)}.")
    lowering = _Lowering(model)
    for port in model.graph.inputs:
        lowering.declare(port)
    for number, stage in enumerate(split(model.graph, backends, kinds)):
        first = lowering.stage(stage, number)
        if first is not None and stage.backend is not backends[0]:
            lowering.fallbacks.append(_fallback(first, stage, placed))
    return lowering.finish()


def _fallback(step: str, stage: Stage, placed: Mapping[ir.Node, Placed]) -> Fallback:
    nodes = tuple(describe(node) for node in stage.nodes)
    return Fallback(
        step, stage.backend, nodes, tuple("; ".join(placed[node].reasons) for node in stage.nodes)
    )


class Dims:
    """Free dimensions that steps have shown to be equal: a union-find whose roots are integers or
    first-named."""

    def __init__(self) -> None:
        self._parent: dict[str, Dim] = {}

    def root(self, dim: Dim) -> Dim:
        """What stands for a dimension: an integer if it is known to be one, else the first of its names."""
        while isinstance(dim, str) and dim in self._parent:
            dim = self._parent[dim]
        return dim

    def same(self, a: Dim, b: Dim) -> bool:
        """Equate two dimensions; false where both are integers and differ."""
        first, second = self.root(a), self.root(b)
        if isinstance(second, str):
            if first != second:
                self._parent[second] = first
            return True
        if isinstance(first, str):
            self._parent[first] = second
            return True
        return first == second


@dataclass
class _Lowering:
    model: ir.Model
    dims: Dims = field(default_factory=Dims)
    values: list[Value] = field(default_factory=list)
    index: dict[ir.Value, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    fallbacks: list[Fallback] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    origins: dict[str, frozenset[str]] = field(default_factory=dict)
    stages: list[tuple[str, ...]] = field(default_factory=list)

    def declare(self, value: ir.Value) -> int:
        """A new program value of the type and shape that the model states."""
        dtype, shape = carrier(value.dtype), dims(value)
        if shape is not None and len(shape) > MOST_AXES:
            raise CrossingError(
                f"The value '{value.name}' has {len(shape)} axes, but between steps, and in and out of an "
                f"engine, there are at most {MOST_AXES}."
            )
        if dtype is None or shape is None or not isinstance(value.type, ir.TensorType):
            kind = "of no known type" if value.type is None else f"a {value.type}"
            found = f"{kind} with the shape {'unknown' if shape is None else list(shape)}"
            raise CrossingError(
                f"The value '{value.name}' must be a tensor of a known rank and of a type that passes "
                f"between steps, but it is {found}."
            )
        return self.add(value, Value(dtype, _named(value, shape)))

    def add(self, value: ir.Value, described: Value) -> int:
        self.values.append(described)
        self.index[value] = len(self.values) - 1
        return self.index[value]

    def stage(self, stage: Stage, number: int) -> str | None:
        """The steps of a stage; gives the name of the first, or None where nothing reads what it makes."""
        position = len(self.steps)
        if stage.backend.takes_models:
            self.model_step(stage, f"{FALLBACK}.{number}")
        else:
            for node in stage.nodes:
                self.native(node, stage.backend)
            self.stages.append(tuple(step.name for step in self.steps[position:]))
        return self.steps[position].name if len(self.steps) > position else None

    def native(self, node: ir.Node, backend: Backend) -> None:
        """One openwork node as a step."""
        if not is_openwork(node):
            raise BuildError(f"{describe(node)} is no openwork operator.")
        row, form = row_of(node), form_of(node)
        known = [self._operand(node, slot, value) for slot, value in self._used(node, form)]
        form = replace(
            form, inputs=known, outputs=[(slot, held and Operand()) for slot, held in form.outputs]
        )
        shapes = examine(row, form, self.dims.same)
        if isinstance(shapes, Problem):
            raise BuildError(f"{describe(node)}: {shapes}.")
        used = self._used(node, form)
        inputs = tuple(self._index(node, value) for slot, value in used if not slot.tensor)
        tensors = {
            slot.name: self._store(node, value) for slot, value in used if slot.tensor and value is not None
        }
        held = {
            slot.name: value for (slot, read), value in zip(form.outputs, node.outputs, strict=False) if read
        }
        made = tuple(
            self._made(held.get(slot.name), output_dtype(form, slot), shape)
            for slot, shape in zip(row.outputs, shapes, strict=True)
        )
        op = step_name(row.name)
        tactics = _dense(row.weighted, form)
        name = self._unique(node.name or op)
        plain = _plain(form.attributes)
        step = Step(op, name, inputs, made, tensors, plain, tactics=tactics, backend=backend.name)
        self.steps.append(step)
        self.origins[name] = origins(node)

    def model_step(self, stage: Stage, name: str) -> None:
        """A stage's nodes as one step, an ONNX model of its own."""
        inputs, outputs = boundary(stage, self.model.graph)
        if not outputs:
            return
        indices = tuple(self._known(value, stage.backend.title) for value in inputs)
        content, stored = model_of(stage, self.model, inputs, outputs)
        made = tuple(self.declare(value) for value in outputs)
        unique = self._unique(name)
        slots = {MODEL: np.frombuffer(content, np.uint8)}
        slots |= {data_slot(n): array.reshape(-1).view(np.uint8) for n, array in enumerate(stored)}
        tensors = {slot: f"{unique}.{slot}" for slot in slots}
        step = Step(FALLBACK, unique, indices, made, tensors, backend=stage.backend.name)
        self.tensors |= {tensors[slot]: array for slot, array in slots.items()}
        self._check(step, stage.backend)
        self.steps.append(step)

    def _check(self, step: Step, backend: Backend) -> None:
        """An engine's reader refuses what is not safe to run; so does its writer."""
        try:
            backend.check(step, Program((), (), tuple(self.values), ()), self.tensors)
        except ValueError as error:
            raise BuildError(str(error)) from None

    def finish(self) -> Lowered:
        """The program with every free dimension under the one name that stands for it."""
        graph = self.model.graph
        values = tuple(Value(v.dtype, tuple(self.dims.root(dim) for dim in v.shape)) for v in self.values)
        inputs = tuple(Named(str(value.name), self.index[value]) for value in graph.inputs)
        outputs = tuple(Named(str(value.name), self._known(value, "the outputs")) for value in graph.outputs)
        program = Program(inputs, outputs, values, tuple(self.steps))
        names = tuple(str(value.name) for value in sorted(self.index, key=self.index.__getitem__))
        return Lowered(program, self.tensors, tuple(self.fallbacks), self.origins, tuple(self.stages), names)

    def _used(self, node: ir.Node, form: Form) -> list[tuple[Slot, ir.Value | None]]:
        """The inputs of a node by their slots, those that the form leaves out as None."""
        values = [*node.inputs, *[None] * (len(form.inputs) - len(node.inputs))]
        return [
            (slot, None if held is None else value)
            for (slot, held), value in zip(form.inputs, values, strict=True)
        ]

    def _operand(self, node: ir.Node, slot: Slot, value: ir.Value | None) -> tuple[Slot, Operand | None]:
        """What a slot holds, as the program knows it: free dimensions under the names of its own values."""
        if value is None or slot.tensor:
            return slot, operand_of(value)
        return slot, Operand(*self.values[self._known(value, describe(node))])

    def _index(self, node: ir.Node, value: ir.Value | None) -> int | None:
        return None if value is None else self._known(value, describe(node))

    def _made(self, value: ir.Value | None, dtype: str, shape: Partial | None) -> int | None:
        """An output as a new value; what the contract leaves open in its shape gets a name of its own."""
        if value is None:
            return None
        if shape is None:
            raise BuildError(f"The value '{value.name}' needs a known rank.")
        return self.add(value, Value(dtype, _named(value, shape)))

    def _store(self, node: ir.Node, value: ir.Value) -> str:
        name, array = str(value.name), constant(value)
        if array is None:
            raise BuildError(f"{describe(node)} needs '{name}' as an initializer.")
        if array.dtype == np.float32 and not np.isfinite(array).all():
            raise BuildError(f"The tensor '{name}' holds NaN or infinite values, which no engine stores.")
        self.tensors[name] = np.ascontiguousarray(array)
        return name

    def _known(self, value: ir.Value, reader: str) -> int:
        if value not in self.index:
            raise BuildError(
                f"{reader} reads '{value.name}', which is neither an input of the model nor made by a "
                f"node before it."
            )
        return self.index[value]

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self.names:
            unique, number = f"{name}.{number}", number + 1
        self.names.add(unique)
        return unique


def _dense(weighted: str, form: Form) -> tuple[Choice, ...]:
    """The tactic of a product until it is timed: dense, of its weight's type; nothing for other operators."""
    found = [ELEMENTS[str(weight.dtype)] for weight in form.given(weighted)]
    return tuple(Choice(None, str(Tactic(element=element))) for element in found)


def _named(value: ir.Value, shape: Partial) -> Shape:
    return tuple(f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON holds them."""
    return {name: _plain_value(value) for name, value in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
