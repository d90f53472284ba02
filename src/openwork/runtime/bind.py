"""Handing a program to the native library, one method for each kind of step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.operators import ACTIVATIONS, RESIDUAL_QUANTIZATION
from openwork.program import NATIVE_DTYPES, Program, Step, Value
from openwork.runtime.packing import DENSE, Tensors, available, native, pack, stored_weight
from openwork.shapes import Dim
from openwork.sparsity.stored import dense

ATTENTION_ROUNDINGS = ("score_scale", "score_zero_point", "probability_scale", "probability_zero_point")


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

    def _handles_of(self, step: Step) -> tuple[list[int], list[int]]:
        return [self.handle(i) for i in step.inputs], [self.handle(o) for o in step.outputs]

    def _embedding_sum(self, step: Step) -> None:
        (ids, types), (y,) = self._handles_of(step)
        tables = [self._tensor(step, slot) for slot in ("word", "position", "type")]
        self.native.embedding_sum(step.name, ids, types, y, *tables)

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
        weights, rows = self._packed(step)
        scale = _scales(step, self.tensors[step.tensors["weight_scale"]])
        tail = (step.attributes["x_zero_point"], step.attributes["activation"], *_quantization(step))
        self.native.linear(
            step.name,
            x,
            residual,
            y,
            weights,
            rows,
            scale,
            self._tensor(step, "bias"),
            *tail,
            self._tensor(step, "y_multiplier"),
            **_ending(step),
        )

    def _packed(self, step: Step) -> tuple[list[Any], list[int]]:
        """The packed weights of each tactic and the largest number of rows it runs, -1 for any."""
        width = self.program.values[step.inputs[0] or 0].shape[-1]
        weight = dense(stored_weight(step, self.tensors, int(width)))
        packed: dict[str, Any] = {}
        weights, rows = [], []
        for choice in step.tactics:
            form = available(choice.tactic, weight, self.isa)
            if form not in packed:
                packed[form] = pack(weight, form, self.isa)
            weights.append(packed[form])
            rows.append(-1 if choice.max_rows is None else choice.max_rows)
        return weights, rows

    def _linear_float(self, step: Step) -> None:
        (x, residual), (y,) = self._handles_of(step)
        packed = pack(self.tensors[step.tensors["weight"]], DENSE, self.isa)
        tail = (self._tensor(step, "bias"), 0, step.attributes["activation"], *_quantization(step))
        self.native.linear(step.name, x, residual, y, [packed], [-1], None, *tail, **_ending(step))

    def _attention(self, step: Step) -> None:
        inputs, (y,) = self._handles_of(step)
        q, k, v, mask = inputs if len(inputs) == 4 else (inputs[0], -1, -1, inputs[1])
        attributes = step.attributes
        roundings = {name: attributes[name] for name in ATTENTION_ROUNDINGS if name in attributes}
        tail = (attributes["heads"], attributes["scale"], *_quantization(step))
        self.native.attention(step.name, q, k, v, mask, y, *tail, **roundings)

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
        raise ValueError(
            f"The step '{step.name}' has a weight scale that is negative, infinite or no number."
        )
    return scale
