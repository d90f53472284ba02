"""Every operator as a step of a native program, from its row alone: the bits of its reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from openwork import _native as native
from openwork.backends.cpu.bind import bind
from openwork.engine.dtypes import DTYPES
from openwork.engine.operators import OPERATORS, Operator, step_name, step_names
from openwork.engine.program import Choice, Named, Program, Step, Value
from operator_samples import Sample

ROUNDS = 20
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dense_choice(weight: np.ndarray) -> tuple[Choice, ...]:
    tactic = "dense" if weight.dtype == np.int8 else "f32:dense"
    return Choice(3, tactic), Choice(None, tactic)


class OneStep:
    """A sample as a program of one step, with the arrays that it reads and stores."""

    def __init__(self, row: Operator, sample: Sample) -> None:
        self.tensors: dict[str, np.ndarray] = {}
        self.arrays: list[np.ndarray] = []
        self.values: list[Value] = []
        inputs = [self._input(array) for slot, array in sample.arrays if not slot.tensor]
        for slot, array in sample.arrays:
            if slot.tensor and array is not None:
                self.tensors[slot.name] = array
        self.expected = sample.results()
        outputs = [None if array is None else self._value(array) for array in self.expected]
        weight = self.tensors.get(row.weighted)
        self.step = Step(
            step_name(row.name),
            row.name,
            tuple(inputs),
            tuple(outputs),
            {name: name for name in self.tensors},
            sample.attributes,
            tactics=() if weight is None else dense_choice(weight),
        )

    def _value(self, array: np.ndarray) -> int:
        self.values.append(Value(NAMES[array.dtype], array.shape))
        return len(self.values) - 1

    def _input(self, array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        self.arrays.append(array)
        return self._value(array)

    @property
    def has_axes(self) -> bool:
        """Whether every value has a dimension; a program has no others."""
        return all(value.shape for value in self.values)

    def run(self, isa: str) -> list[Any]:
        taken, given = (
            tuple(Named(str(index), index) for index in indices if index is not None)
            for indices in (self.step.inputs, self.step.outputs)
        )
        program = Program(taken, given, tuple(self.values), (self.step,))
        bound = bind(program, self.tensors, isa)
        return list(native.Context(bound.program, 1).run(self.arrays))


def test_every_operator_has_a_step() -> None:
    assert set(step_names()) <= set(native.steps())


@pytest.mark.parametrize("isa", native.isas())
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_step_of_an_operator_has_the_bits_of_its_reference(name: str, isa: str) -> None:
    row, ran = OPERATORS[name], 0
    for seed in range(ROUNDS):
        one = OneStep(row, Sample(row, np.random.default_rng(seed)))
        if not one.has_axes:
            continue
        ran += 1
        expected = [array for array in one.expected if array is not None]
        for found, wanted in zip(one.run(isa), expected, strict=True):
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape), f"seed {seed}"
            assert found.tobytes() == wanted.tobytes(), f"seed {seed}"
    assert ran
