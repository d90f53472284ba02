"""Handing a program to the native library, step by step, as the operators' rows say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.packing import Tensors
from openwork.backends.cpu.weights import pack_weights
from openwork.backends.library import native
from openwork.engine.dtypes import NATIVE_DTYPES
from openwork.engine.file_tensors import table
from openwork.engine.operators import ACTIVATIONS, Operator, Slot, pair, row_of_step
from openwork.engine.program import Program, Step, Value
from openwork.engine.shapes import Dim


@dataclass(frozen=True)
class Bound:
    """A native program and, in its order, the indices of the values that it takes and gives."""

    program: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def bind(program: Program, tensors: Tensors, isa: str) -> Bound:
    """Make a native program of a program without fallback steps.

    Raises ValueError where the native library refuses a step or a weight.
    """
    return _Binding(program, tensors, isa).bound()


class _Binding:
    def __init__(self, program: Program, tensors: Tensors, isa: str) -> None:
        self.program, self.tensors, self.isa = program, tensors, isa
        self.native = native().Program(isa)
        self._packed = pack_weights(program, tensors, isa)
        self._dims: dict[str, int] = {}
        self._handles: dict[int, int] = {}

    def bound(self) -> Bound:
        inputs = tuple(dict.fromkeys(named.value for named in self.program.inputs))
        outputs = tuple(dict.fromkeys(named.value for named in self.program.outputs))
        for index in inputs:
            self.handle(index)
        for step in self.program.steps:
            self._step(step)
        self.native.finish([self.handle(i) for i in inputs], [self.handle(o) for o in outputs])
        return Bound(self.native, inputs, outputs)

    def handle(self, index: int | None) -> int:
        """The native handle of a value, -1 for an absent one."""
        if index is None:
            return -1
        if index not in self._handles:
            self._handles[index] = self._declare(self.program.values[index])
        return self._handles[index]

    def _declare(self, value: Value) -> int:
        if value.dtype not in NATIVE_DTYPES:
            raise ValueError(
                f"A native step handles values of the types {', '.join(NATIVE_DTYPES)}, but one is "
                f"{value.dtype}."
            )
        return int(self.native.value(value.dtype, [self._dim(dim) for dim in value.shape]))

    def _dim(self, dim: Dim) -> int:
        if isinstance(dim, int):
            return dim
        return -1 - self._dims.setdefault(dim, len(self._dims))

    def _step(self, step: Step) -> None:
        """One call: values by handle, tensors and attributes, each under the name that the row gives it."""
        row = row_of_step(step.op)
        if row is None:
            raise ValueError(f"The step '{step.name}' is a '{step.op}', which is no operator.")
        call = native_call(step)
        arguments = {
            **self._handles_of(row.activations, step.inputs),
            **self._handles_of(row.outputs, step.outputs),
            **self._tensors_of(row, step),
            **{name: _value(row, name, value) for name, value in step.attributes.items()},
            **(self._weights(step, row) if row.weighted else {}),
            **call.fixed,
        }
        arguments |= {name: convert(arguments[name]) for name, convert in call.converted.items()}
        named = {call.renamed.get(name, name): value for name, value in arguments.items()}
        method = getattr(self.native, call.method, None)
        if method is None:
            raise ValueError(f"The native library has no '{step.op}', which the step '{step.name}' needs.")
        method(step.name, **{name: value for name, value in named.items() if name})

    def _handles_of(self, slots: tuple[Slot, ...], indices: tuple[int | None, ...]) -> dict[str, Any]:
        """The handle of each slot's value, of a variadic one those of all."""
        handles: dict[str, Any] = {}
        for slot, index in pair(slots, indices) or ():
            if slot.variadic:
                handles.setdefault(slot.name, []).append(self.handle(index))
            else:
                handles[slot.name] = self.handle(index)
        return handles

    def _tensors_of(self, row: Operator, step: Step) -> dict[str, Any]:
        """The stored tensors by slot. Of a table whose rows a run picks only those rows are read."""
        picked = {slot.indexes for slot in row.inputs}
        return {
            slot.name: (table(self.tensors, name) if slot.name in picked else self.tensors[name])
            if (name := step.tensors.get(slot.name)) is not None and slot.name != row.weighted
            else None
            for slot in row.tensors
        }

    def _weights(self, step: Step, row: Operator) -> dict[str, Any]:
        """The weight as it runs: packed for each tactic; the scale of the sums, where they are integers."""
        packed = self._packed[step.outputs[0]]
        scale = _scales(step, self.tensors[step.tensors["weight_scale"]]) if step.reads_integers else None
        x_zero_point = step.attributes.get("x_zero_point", 0)
        weights = {row.weighted: packed.weights, "max_rows": packed.max_rows}
        return {**weights, "weight_scale": scale, "x_zero_point": x_zero_point}


@dataclass(frozen=True)
class NativeCall:
    """How the native library makes a step: its method, the arguments that it calls otherwise than the row
    (by "" where it has none), those that the row does not have, and those that it takes in another form."""

    method: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    converted: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def _rows(tables: NDArray[np.uint8] | None) -> list[NDArray[np.uint8]]:
    return [] if tables is None else list(tables)


_CALLS = {
    "embedding_sum": NativeCall("embedding_sum", {"y": "out"}),
    "concat": NativeCall("concat", {"x": "inputs"}, converted={"tables": _rows}),
    "linear": NativeCall("linear", {"weight": "weights", "weight_scale": "scale", "x_scale": ""}),
    "dequantize": NativeCall("dequantize", {"x_scale": "scale", "x_zero_point": "zero_point"}),
    **{name: NativeCall("activate", fixed={"activation": name}) for name in ACTIVATIONS},
}


def native_call(step: Step) -> NativeCall:
    """The native method of a step; a table of what differs, for as long as each operator has one."""
    return _CALLS.get(step.op, NativeCall(step.op))


def _value(row: Operator, name: str, value: Any) -> Any:
    """An attribute as the native library takes it."""
    attribute = row.attribute(name)
    return bool(value) if attribute is not None and attribute.kind == "flag" else value


def _scales(step: Step, weight_scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_scale * weight_scale, rounded once; raises ValueError unless each is finite and not negative."""
    with np.errstate(all="ignore"):
        scale = np.float32(step.attributes["x_scale"]) * weight_scale
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError(f"The step '{step.name}' has a weight scale that is negative, infinite or NaN.")
    return scale
