"""The one place that calls openwork's kernels: packing, checking and timing a problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.runtime.packing import native

from . import problem as problems
from .peak import NATIVE_TYPES
from .problem import X_ZERO_POINT, Exact, Problem, to_bf16
from .results import DENSE
from .shapes import Convolution


def packed_forms(problem: Problem, isa: str) -> Iterator[tuple[str, Any]]:
    """Each form that the problem's pattern may take: its packed weights, or a sentence why it does not.

    A dense weight takes the dense form alone; in a sparse one every form leaves the zeros out.
    """
    for form in native().forms(isa, NATIVE_TYPES[problem.type]):
        if (form == DENSE) != (problem.pattern == DENSE):
            continue
        try:
            yield form, _pack(problem, form, isa)
        except ValueError as refused:
            yield form, str(refused)


def _pack(problem: Problem, form: str, isa: str) -> Any:
    weight = to_bf16(problem.weight) if problem.type == "bf16" else problem.weight
    return native().PackedWeights.pack(np.ascontiguousarray(weight), form, isa, problem.layer.shape.groups)


def verify(problem: Problem, truth: Exact, packed: Any, threads: int) -> None:
    """Raise ValueError unless the kernel gives every integer exactly, or floats within their rounding."""
    found = truth.taken(_run(problem, packed, threads))
    if problem.type == "int8":
        wrong = found != truth.sums.astype(np.float32)
    else:
        wrong = np.abs(found - truth.sums) > problems.float_bound(problem, truth, 0.0)
    problems.refuse(problem, wrong, f"The form {packed.form}")


def _run(problem: Problem, packed: Any, threads: int) -> NDArray[np.float32]:
    """The sums themselves: scale 1, no bias, float output."""
    x = to_bf16(problem.x) if problem.type == "bf16" else problem.x
    ones = np.ones(problem.layer.shape.n, np.float32)
    zero_point = X_ZERO_POINT if problem.type == "int8" else 0
    if isinstance(problem.layer.shape, Convolution):
        raise NotImplementedError
    found: NDArray[np.float32] = native().linear(x, packed, ones, None, zero_point, threads=threads)
    return found


def seconds(problem: Problem, packed: Sequence[Any], threads: int, calls: int) -> NDArray[np.float64]:
    """The median seconds of a call of each of the packed weights, which take turns. INT8 gives u8."""
    quantized = problem.type == "int8"
    shape = problem.layer.shape
    times = native().time_linear(list(packed), shape.rows, "none", quantized, threads, calls)
    medians: NDArray[np.float64] = np.median(times, axis=1)
    return medians
