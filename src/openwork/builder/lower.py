"""From a reduced model to a program: each openwork node becomes one step, everything else a fallback step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.backends.backend import Backend
from openwork.backends.registry import backends as known_backends
from openwork.builder.stages import Placed, Stage, boundary, model_of, place, split
from openwork.engine.operators import Operator
from openwork.engine.program import FALLBACK, Choice, Named, Program, Step, Value
from openwork.engine.shapes import Dim, Letters, Shape, operator_of, slot_dtype, step_name
from openwork.graph.model import attributes, constant, describe, dims, is_openwork

DENSE = (Choice(None, "dense"),)

_DTYPES = {
    ir.DataType.FLOAT: "f32",
    ir.DataType.UINT8: "u8",
    ir.DataType.INT8: "s8",
    ir.DataType.INT64: "i64",
    ir.DataType.INT32: "i32",
    ir.DataType.DOUBLE: "f64",
    ir.DataType.FLOAT16: "f16",
    ir.DataType.BOOL: "bool",
}


class BuildError(ValueError):
    """A model that cannot become an engine; the message says which node and why."""


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
    """A program whose linear steps are all dense, its tensors, and its fallback steps."""

    program: Program
    tensors: dict[str, NDArray[Any]]
    fallbacks: tuple[Fallback, ...]


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

    def declare(self, value: ir.Value) -> int:
        """A new program value of the type and shape that the model states."""
        dtype = _DTYPES.get(value.dtype) if value.dtype is not None else None
        shape = dims(value)
        if dtype is None or shape is None:
            raise BuildError(
                f"The value '{value.name}' needs a known rank and one of the types "
                f"{', '.join(_DTYPES.values())}, but it "
                f"is {value.dtype} with shape {'unknown' if shape is None else list(shape)}."
            )
        known = tuple(f"{value.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape))
        return self.add(value, Value(dtype, known))

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
        return self.steps[position].name if len(self.steps) > position else None

    def native(self, node: ir.Node, backend: Backend) -> None:
        """One openwork node as a step."""
        if not is_openwork(node):
            raise BuildError(f"{describe(node)} is no openwork operator.")
        op, plain = step_name(node.op_type), _plain(attributes(node))
        outputs = [value if _read(value) else None for value in node.outputs]
        if op == "layer_norm" and (len(outputs) < 2 or outputs[1] is None):
            plain = {name: value for name, value in plain.items() if name not in ("y_scale", "y_zero_point")}
        row = operator_of(op, plain)
        letters = Letters(self.dims.same)
        slots = dict(zip((slot.name for slot in row.inputs), node.inputs, strict=False))
        if "y_scale" not in plain:
            # A layer norm whose quantized output nobody reads has no use for its multiplier either.
            slots.pop("y_multiplier", None)
        inputs = tuple(
            self._activation(node, slot, slots.get(slot.name), letters) for slot in row.activations
        )
        tensors = self._tensors(node, row, slots, letters)
        made = tuple(
            None
            if value is None
            else self.add(value, Value(slot_dtype(slot, plain), letters.fill(slot.shape)))
            for slot, value in zip(row.outputs, [*outputs, *[None] * len(row.outputs)], strict=False)
        )
        tactics = DENSE if op == "linear" else ()
        self.steps.append(
            Step(op, self._unique(node.name or op), inputs, made, tensors, plain, None, tactics, backend.name)
        )

    def model_step(self, stage: Stage, name: str) -> None:
        """A stage's nodes as one step, an ONNX model of its own."""
        inputs, outputs = boundary(stage, self.model.graph)
        if not outputs:
            return
        indices = tuple(self._known(value, stage.backend.title) for value in inputs)
        content = np.frombuffer(model_of(stage, self.model, inputs, outputs), np.uint8)
        made = tuple(self.declare(value) for value in outputs)
        unique = self._unique(name)
        tensor = f"{unique}.model"
        step = Step(FALLBACK, unique, indices, made, {"model": tensor}, backend=stage.backend.name)
        self.tensors[tensor] = content
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
        return Lowered(program, self.tensors, tuple(self.fallbacks))

    def _activation(self, node: ir.Node, slot: Any, value: ir.Value | None, letters: Letters) -> int | None:
        if value is None:
            if slot.optional:
                return None
            raise BuildError(f"{describe(node)} lacks its input '{slot.name}'.")
        index = self._known(value, describe(node))
        dtype, shape = self.values[index]
        if dtype not in slot.dtypes or not letters.match(slot.shape, shape):
            self._misfit(node, slot, dtype, shape)
        return index

    def _tensors(
        self, node: ir.Node, row: Operator, slots: Mapping[str, ir.Value | None], letters: Letters
    ) -> dict[str, str]:
        names = {}
        for slot in row.tensors:
            value = slots.get(slot.name)
            if value is None and slot.optional:
                continue
            array = constant(value)
            if value is None or array is None:
                raise BuildError(f"{describe(node)} needs its '{slot.name}' as an initializer.")
            dtype = {"float32": "f32", "int8": "s8"}.get(array.dtype.name, array.dtype.name)
            if dtype not in slot.dtypes or not letters.match(slot.shape, array.shape):
                self._misfit(node, slot, dtype, array.shape)
            names[slot.name] = self._store(str(value.name), array)
        return names

    def _store(self, name: str, array: NDArray[Any]) -> str:
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

    def _misfit(self, node: ir.Node, slot: Any, dtype: str, shape: Shape) -> None:
        raise BuildError(
            f"{describe(node)} takes as '{slot.name}' {' or '.join(slot.dtypes)} [{','.join(slot.shape)}] "
            f"in agreement "
            f"with its other shapes, but it is {dtype} {list(shape)}."
        )

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self.names:
            unique, number = f"{name}.{number}", number + 1
        self.names.add(unique)
        return unique


def _read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON holds them."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
