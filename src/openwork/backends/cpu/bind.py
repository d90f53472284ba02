"""Handing a program to the native library, step by step, as the operators' rows say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openwork.backends.cpu.packing import Tensors
from openwork.backends.cpu.rounding import MOVES, ROUNDS_ITSELF, made_as_bf16
from openwork.backends.cpu.weights import pack_weights
from openwork.backends.library import native
from openwork.engine.dtypes import NATIVE_DTYPES
from openwork.engine.file_tensors import table
from openwork.engine.operators import Operator, Slot, pair, row_of_step
from openwork.engine.program import Program, Step, Value
from openwork.engine.shapes import Dim

ROUND = "round_bf16"
"""The native step that makes BF16 of f32."""
RANGE_PARTS = 16
"""Of a value whose range is looked for: threads share them, and the end of the work is short."""


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
        self._as_bf16 = made_as_bf16(program, self._is_bf16)
        self._reduced: dict[int, int] = {}
        self._quantized: dict[int, tuple[int, int]] = {}
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

    def handle(self, index: int) -> int:
        """The native handle of a value."""
        if index not in self._handles:
            value = self.program.values[index]
            if index in self._as_bf16:
                value = value._replace(dtype="bf16")
                self._reduced[index] = self._handles[index] = self._declare(value)
            else:
                self._handles[index] = self._declare(value)
        return self._handles[index]

    def _is_bf16(self, step: Step) -> bool:
        packed = self._packed.get(step.outputs[0])
        return packed is not None and packed.tactics[0][0].type == "bf16"

    def _reads_bf16(self, step: Step, x: int) -> bool:
        """Whether a step takes its x as BF16 and does not round it itself."""
        if step.op in MOVES:
            return step.outputs[0] in self._as_bf16
        return self._is_bf16(step) and (x in self._reduced or step.op not in ROUNDS_ITSELF)

    def _bf16(self, index: int) -> int:
        """The native handle of a value's BF16; a step that rounds it is added where there is none yet."""
        if index not in self._reduced:
            shape = [self._dim(dim) for dim in self.program.values[index].shape]
            made = int(self.native.value("bf16", shape))
            name = f"{ROUND}.{index}"
            self.native.step(ROUND, name, {"x": [self.handle(index)]}, {"y": [made]}, {}, {}, [])
            self._reduced[index] = made
        return self._reduced[index]

    def _quantized_by_range(self, index: int) -> dict[str, list[int]]:
        """The slots of a product for a value's u8 and its quantizer, which a run finds; made once."""
        if index not in self._quantized:
            x, shape = self.handle(index), [self._dim(dim) for dim in self.program.values[index].shape]
            found, quantizer = self.native.value("f32", [RANGE_PARTS, 2]), self.native.value("f32", [2])
            integers = self.native.value("u8", shape)
            self.native.step("min_max", f"min_max.{index}", {"x": [x]}, {"y": [found]}, {}, {}, [])
            taken, made = {"x": [x], "range": [found]}, {"y": [integers], "quantizer": [quantizer]}
            self.native.step("quantize_by_range", f"quantize_by_range.{index}", taken, made, {}, {}, [])
            self._quantized[index] = int(integers), int(quantizer)
        integers, quantizer = self._quantized[index]
        return {"x": [integers], "x_quantizer": [quantizer]}

    def _declare(self, value: Value) -> int:
        if value.dtype not in (*NATIVE_DTYPES, "bf16"):
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
        """One call: everything under the name that the row gives it."""
        row = row_of_step(step.op)
        if row is None:
            raise ValueError(f"The step '{step.name}' is a '{step.op}', which is no operator.")
        inputs = self._handles_of(row.activations, step.inputs)
        x = step.inputs[0] if step.inputs else None
        if x is not None and self._reads_bf16(step, x):
            inputs[row.activations[0].name] = [self._bf16(x)]
        if x is not None and row.dynamic:
            inputs |= self._quantized_by_range(x)
        self.native.step(
            step.op,
            step.name,
            inputs,
            self._handles_of(row.outputs, step.outputs),
            self._tensors_of(row, step),
            dict(step.attributes),
            self._packed[step.outputs[0]].tactics if row.weighted else [],
        )

    def _handles_of(self, slots: tuple[Slot, ...], indices: tuple[int | None, ...]) -> dict[str, list[int]]:
        """The handles of each slot's values: one, of a variadic slot all, of an absent one no entry."""
        handles: dict[str, list[int]] = {}
        for slot, index in pair(slots, indices) or ():
            if index is not None:
                handles.setdefault(slot.name, []).append(self.handle(index))
        return handles

    def _tensors_of(self, row: Operator, step: Step) -> dict[str, Any]:
        """The stored tensors by slot. Of a table whose rows a run picks only those rows are read."""
        picked = {slot.indexes for slot in row.inputs}
        return {
            slot.name: table(self.tensors, name) if slot.name in picked else self.tensors[name]
            for slot in row.tensors
            if slot.name != row.weighted and (name := step.tensors.get(slot.name)) is not None
        }
