"""The one place that calls openwork's kernels: packing, checking and timing a problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.backends.library import native

from . import problem as problems
from .peak import NATIVE_TYPES
from .problem import X_ZERO_POINT, Array, Exact, Problem, to_bf16
from .results import DENSE
from .shapes import Convolution, Gemm, Layer


def packed_forms(problem: Problem, isa: str) -> Iterator[tuple[str, Any]]:
    """Each form that the problem's pattern may take: its packed weights, or a sentence why it does not.

    A dense weight takes the dense form, and where it has groups any: the shuffled ones leave out what stands
    between the groups. In a sparse weight they leave the zeros out.
    """
    grouped = problem.layer.shape.groups > 1
    for known in native().forms(isa, NATIVE_TYPES[problem.type]):
        form = known.name
        if (known.sparse or known.body == "depthwise") == (problem.pattern == DENSE) and not grouped:
            continue
        try:
            yield form, _pack(problem, form, isa)
        except ValueError as refused:
            yield form, str(refused)


def _pack(problem: Problem, form: str, isa: str) -> Any:
    weight = np.ascontiguousarray(_stored(problem, problem.weight))
    shape = problem.layer.shape
    if not isinstance(shape, Convolution):
        return native().PackedWeights.pack(weight, form, isa)
    kind = NATIVE_TYPES[problem.type]
    run = native().conv_run(weight.shape, shape.groups, shape.dilation, form, kind)
    return native().PackedWeights.pack(weight, form, isa, shape.groups, run)


def _stored(problem: Problem, values: Array) -> Array:
    """Numbers as the kernels read them."""
    return to_bf16(values) if problem.type == "bf16" else values


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
    shape = problem.layer.shape
    x, ones = _stored(problem, problem.x), np.ones(shape.n, np.float32)
    zero_point = X_ZERO_POINT if problem.type == "int8" else 0
    given = {"x_zero_point": zero_point, "threads": threads}
    found: NDArray[np.float32]
    if isinstance(shape, Convolution):
        found = native().conv(x, packed, ones, **_grid(shape), **given)
    else:
        found = native().linear(x, packed, ones, **given)
    return found


def _grid(shape: Convolution) -> dict[str, Any]:
    pads = (*shape.padding, *shape.padding)
    return {"strides": shape.stride, "dilations": shape.dilation, "pads": pads}


def seconds(problem: Problem, packed: Sequence[Any], threads: int, calls: int) -> NDArray[np.float64]:
    """The median seconds of a call of each of the packed weights. INT8 gives u8.

    Each has a turn of its own, which begins with an untimed call: with all of them in one turn, tens of
    megabytes would pass between two calls of the same weights, and they would come from memory.
    """
    return np.array([np.median(_turn(problem, weights, threads, calls)) for weights in packed])


def _turn(problem: Problem, weights: Any, threads: int, calls: int) -> NDArray[np.float64]:
    shape = problem.layer.shape
    given = {"quantized": problem.type == "int8", "threads": threads, "repeats": calls}
    times: NDArray[np.float64]
    if isinstance(shape, Convolution):
        size = (shape.batch, shape.height, shape.width)
        times = native().time_conv([weights], size, **_grid(shape), **given)
    else:
        times = native().time_linear([weights], shape.rows, **given)
    return times


def as_product(problem: Problem) -> Problem:
    """The matrix product of a convolution's sizes and weights; its x, the patches, is not made."""
    shape = problem.layer.shape
    product = Layer(problem.layer.network, problem.layer.name, Gemm(shape.rows, shape.k, shape.n))
    return replace(problem, layer=product, weight=problem.weight.reshape(shape.n, -1))
