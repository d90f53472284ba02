"""The shapes that a model makes of inputs of known shapes, for timing what comes after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from openwork.backends.backend import Array, Made, Tensors
from openwork.backends.onnxruntime.session import FallbackSession, checked_model
from openwork.engine.dtypes import DTYPES
from openwork.engine.program import Step, Value

_MOST_SAMPLED = 1 << 28
"""Elements of the inputs up to which a model is run to see its shapes."""


def made_shapes(
    step: Step, values: tuple[Value, ...], tensors: Tensors, inputs: Sequence[tuple[int, ...]]
) -> Made | str:
    """The shapes that the model of a step makes of inputs of these shapes, or why they are not known.

    ONNX's shape inference says them where they follow from the inputs' shapes. Where they follow from the
    data the model is run once, on random inputs, and the shapes are not exact.
    """
    parsed = checked_model(step, values, tensors)
    for port, shape in zip(parsed.graph.input, inputs, strict=True):
        for dim, size in zip(port.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = size
    inferred = _inferred(parsed)
    return Made(inferred, True) if inferred is not None else _sampled(step, values, tensors, inputs)


def _inferred(model: onnx.ModelProto) -> tuple[tuple[int, ...], ...] | None:
    try:
        found = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None
    dims = [port.type.tensor_type.shape.dim for port in found.graph.output]
    if not all(dim.HasField("dim_value") for shape in dims for dim in shape):
        return None
    return tuple(tuple(int(dim.dim_value) for dim in shape) for shape in dims)


def _sampled(
    step: Step, values: tuple[Value, ...], tensors: Tensors, inputs: Sequence[tuple[int, ...]]
) -> Made | str:
    if sum(math.prod(shape) for shape in inputs) > _MOST_SAMPLED:
        return "its inputs are too large to try it on samples"
    rng = np.random.default_rng(0)
    read = [values[index] for index in step.inputs if index is not None]
    try:
        session = FallbackSession(step, values, tensors, 1)
        made = session.run([_sample(v.dtype, shape, rng) for v, shape in zip(read, inputs, strict=True)])
    except (ValueError, ImportError) as error:
        return str(error)
    return Made(tuple(array.shape for array in made), False)


def _sample(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Normal floats, any u8 and s8; ones for other integers, which may be ids or masks."""
    kind: np.dtype[Any] = DTYPES[dtype]
    if kind == np.object_:
        return np.full(shape, "", np.object_)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, shape, kind)
    return np.ones(shape, kind)
