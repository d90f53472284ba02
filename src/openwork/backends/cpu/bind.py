"""Handing a program to the native library, one method for each kind of step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.cpu.packing import Tensors, native
from openwork.backends.cpu.weights import pack_weights
from openwork.engine.file_tensors import table
from openwork.engine.operators import ACTIVATIONS, RESIDUAL_QUANTIZATION
from openwork.engine.program import NATIVE_DTYPES, Program, Step, Value
from openwork.engine.shapes import Dim

TABLES = ("word", "position", "type")
"""The tables of an embedding sum, of which a run reads the rows that its ids name."""


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
            method = "activate" if step.op in ACTIVATIONS else step.op
            getattr(self, f"_{method}")(step)
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

    def _tensor(self, step: Step, slot: str) -> NDArray[Any] | None:
        return self.tensors[step.tensors[slot]] if slot in step.tensors else None

    def _table(self, step: Step, slot: str) -> NDArray[Any] | None:
        return table(self.tensors, step.tensors[slot]) if slot in step.tensors else None

    def _handles_of(self, step: Step) -> tuple[list[int], list[int]]:
        return [self.handle(i) for i in step.inputs], [self.handle(o) for o in step.outputs]

    def _embedding_sum(self, step: Step) -> None:
        (ids, types), (y,) = self._handles_of(step)
        self.native.embedding_sum(step.name, ids, types, y, *(self._table(step, slot) for slot in TABLES))

    def _layer_norm(self, step: Step) -> None:
        (x,), (y, yq) = self._handles_of(step)
        gamma, beta = self._tensor(step, "gamma"), self._tensor(step, "beta")
        self.native.layer_norm(
            step.name,
            x,
            y,
            yq,
            gamma,
            beta,
            step.attributes["epsilon"],
            *_quantization(step),
            self._tensor(step, "y_multiplier"),
        )

    def _linear(self, step: Step) -> None:
        (x, residual), (y,) = self._handles_of(step)
        packed = self._packed[step.outputs[0]]
        scale = _scales(step, self.tensors[step.tensors["weight_scale"]])
        tail = (step.attributes["x_zero_point"], step.attributes["activation"], *_quantization(step))
        self.native.linear(
            step.name,
            x,
            residual,
            y,
            packed.weights,
            packed.max_rows,
            scale,
            self._tensor(step, "bias"),
            *tail,
            self._tensor(step, "y_multiplier"),
            **_ending(step),
        )

    def _linear_float(self, step: Step) -> None:
        (x, residual), (y,) = self._handles_of(step)
        weight, bias = self._tensor(step, "weight"), self._tensor(step, "bias")
        activation = step.attributes["activation"]
        self.native.linear_float(
            step.name, x, residual, y, weight, bias, activation, *_quantization(step), **_ending(step)
        )

    def _attention(self, step: Step) -> None:
        inputs, (y,) = self._handles_of(step)
        q, k, v, mask = inputs if len(inputs) == 4 else (inputs[0], -1, -1, inputs[1])
        attributes = step.attributes
        self.native.attention(
            step.name, q, k, v, mask, y, attributes["heads"], attributes["scale"], *_quantization(step)
        )

    def _mean_pool(self, step: Step) -> None:
        (x, mask), (y,) = self._handles_of(step)
        self.native.mean_pool(step.name, x, mask, y)

    def _l2_normalize(self, step: Step) -> None:
        (x,), (y,) = self._handles_of(step)
        self.native.l2_normalize(step.name, x, y, step.attributes["epsilon"])

    def _quantize(self, step: Step) -> None:
        (x,), (y,) = self._handles_of(step)
        self.native.quantize(step.name, x, y, *_quantization(step))

    def _add(self, step: Step) -> None:
        (a, b), (y,) = self._handles_of(step)
        self.native.add(step.name, a, b, y)

    def _activate(self, step: Step) -> None:
        (x,), (y,) = self._handles_of(step)
        self.native.activate(step.name, x, y, step.op, **step.attributes)


def _ending(step: Step) -> dict[str, Any]:
    """What a product says about its activation, besides its name, and about a u8 residual."""
    names = ("alpha", "beta", *RESIDUAL_QUANTIZATION)
    numbers = {name: step.attributes[name] for name in names if name in step.attributes}
    return {**numbers, "activation_last": bool(step.attributes.get("activation_last"))}


def _quantization(step: Step) -> tuple[float, int]:
    """Scale and zero point of a u8 output; unused where the output is f32."""
    return step.attributes.get("y_scale", 1.0), step.attributes.get("y_zero_point", 0)


def _scales(step: Step, weight_scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_scale * weight_scale, rounded once; raises ValueError unless each is finite and not negative."""
    with np.errstate(all="ignore"):
        scale = np.float32(step.attributes["x_scale"]) * weight_scale
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError(f"The step '{step.name}' has a weight scale that is negative, infinite or NaN.")
    return scale
