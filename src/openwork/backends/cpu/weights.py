"""The weights of a part's products, from the form in which the engine stores them to the packed forms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from openwork.backends.cpu.packing import Tensors, available, layer, pack, stored_weight
from openwork.engine.problem import Tactic
from openwork.engine.program import Program, Step
from openwork.engine.weights import from_matrix, matrix_width, shape_of
from openwork.patterns.keeping import violation
from openwork.patterns.pattern import Pattern
from openwork.patterns.stored import dense
from openwork.support.cores import physical_cores


@dataclass(frozen=True)
class Packed:
    """A product's weights in each form that runs it, with the largest number of rows that it runs, -1 for
    any."""

    tactics: list[tuple[Any, int]]


def pack_weights(program: Program, tensors: Tensors, isa: str) -> dict[int | None, Packed]:
    """Pack the weights of all steps that have tactics, by the value that the step makes.

    Steps that name one weight share what is packed of it. Several weights at a time: digests, decoding and
    packing run outside of Python's lock where they can, and beside what is packed only one dense weight for
    each thread is in memory.
    Raises ValueError where a weight is not stored in its canonical form, breaks its pattern, or the native
    library refuses it.
    """
    alike: dict[tuple[object, ...], list[Step]] = {}
    for step in program.steps:
        if step.tactics:
            shape = (tuple(step.attributes.get(name, ())) for name in ("kernel", "dilations"))
            key = (step.tensors["weight"], step.pattern, _width(program, step), *shape)
            alike.setdefault(key, []).append(step)
    with ThreadPoolExecutor(physical_cores()) as pool:
        packed = pool.map(lambda steps: _pack(program, steps, tensors, isa), alike.values())
        return {output: found for each in packed for output, found in each.items()}


def _pack(program: Program, steps: list[Step], tensors: Tensors, isa: str) -> dict[int | None, Packed]:
    """One weight, which all these steps name, in every form that one of them runs."""
    of = layer(dense_weight(program, steps[0], tensors), steps[0].attributes, isa)
    packed: dict[Tactic, Any] = {}
    found = {}
    for step in steps:
        tactics = [available(Tactic.parse(choice.tactic), of) for choice in step.tactics]
        packed |= {tactic: pack(of, tactic) for tactic in dict.fromkeys(tactics) if tactic not in packed}
        rows = [-1 if choice.max_rows is None else choice.max_rows for choice in step.tactics]
        found[step.outputs[0]] = Packed(
            [(packed[tactic], most) for tactic, most in zip(tactics, rows, strict=True)]
        )
    return found


def _width(program: Program, step: Step) -> int:
    """The columns of a product's weight as a matrix."""
    return matrix_width(step.attributes, int(program.values[step.inputs[0] or 0].shape[-1]))


def dense_weight(program: Program, step: Step, tensors: Tensors) -> NDArray[Any]:
    """The weight of a step, s8 or f32 [n, k] or of a convolution; raises ValueError where it is not what its
    pattern says."""
    if step.pattern is None:
        return tensors[step.tensors["weight"]]
    stored = stored_weight(step, tensors, _width(program, step))
    matrix, pattern = dense(stored), Pattern.parse(step.pattern)
    found = violation(stored, matrix, pattern)
    if found is not None:
        raise ValueError(
            f"The weight '{step.tensors['weight']}' of the step '{step.name}' breaks its pattern {pattern}: "
            f"{found}."
        )
    shape = shape_of(step.attributes, *matrix.shape)
    if shape is None:
        kernel = list(step.attributes["kernel"])
        raise ValueError(
            f"The weight '{step.tensors['weight']}' of the step '{step.name}' must have a row for each "
            f"of the taps {kernel} of each output channel, but it has {len(matrix)}."
        )
    return from_matrix(matrix, shape)
