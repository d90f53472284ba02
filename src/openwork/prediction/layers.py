"""The products of a model: of an ONNX file as the builder reads it, of an engine file, or as given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openwork.backends.registry import backends
from openwork.builder.faults import drafting
from openwork.builder.lower import lower
from openwork.engine.inspection import inspect_engine
from openwork.engine.problem import Convolution, MatrixProduct, Sizes
from openwork.engine.program import Program, Step
from openwork.engine.sizes import free_sizes, timed_sizes
from openwork.graph import read, reduce
from openwork.support.numbers import whole_number

Source = str | os.PathLike[str]
Shape = Sequence[int]

_MOST = 2**31


@dataclass(frozen=True)
class ProductLayer:
    """One product: its name, its sizes without its rows, and the rows (or output pixels) that it makes."""

    name: str
    sizes: Sizes
    rows: int

    def __post_init__(self) -> None:
        for what, value in (("rows", self.rows), ("n", self.sizes.n), ("k", self.sizes.k)):
            whole_number(value, f"The {what} of the layer '{self.name}'", low=1, high=_MOST)


def layers_of(model: Source | Iterable[ProductLayer], shape: Shape | None) -> tuple[ProductLayer, ...]:
    """The products of a model.

    model : the path of an ONNX model (.onnx) or of an engine, or the layers themselves. shape : one size per
    free dimension of the inputs; default the last one that a build times at. Layers have their rows, and no
    shape.
    Raises ValueError, in a sentence, for a model that cannot be read or has no product.
    """
    if not isinstance(model, (str, os.PathLike)):
        return _given(model, shape)
    path = Path(model)
    program = _of_onnx(path) if path.suffix == ".onnx" else inspect_engine(path).program
    sizes = free_sizes(program, None if shape is None else [shape])[-1]
    found = tuple(_layer(step, program, sizes) for step in program.steps if step.tactics)
    if not found:
        raise ValueError(f"{path.name} has no product with weights in a native step, so no pattern gains.")
    return found


def _given(layers: Iterable[ProductLayer], shape: Shape | None) -> tuple[ProductLayer, ...]:
    found = tuple(layers)
    if shape is not None:
        raise ValueError("Layers that are given have their own rows: give no shape beside them.")
    if not found:
        raise ValueError("There is no layer to predict; give at least one.")
    return found


def _of_onnx(path: Path) -> Program:
    """The steps of a model as the builder makes them, before anything is decided."""
    with drafting("Reading the model"):
        model = read(path)
    with drafting("Making native operators of the model"):
        reduced, _, _ = reduce(model)
    with drafting("Making steps of the model"):
        return lower(reduced, backends(None)).program


def _layer(step: Step, program: Program, sizes: dict[str, int]) -> ProductLayer:
    (timed,) = timed_sizes(step, program, [sizes])
    channels, n = (int(program.values[i or 0].shape[-1]) for i in (step.inputs[0], step.outputs[0]))
    if "kernel" not in step.attributes:
        return ProductLayer(step.name, MatrixProduct(n, channels), timed.rows)
    height, width = step.attributes["kernel"]
    groups = step.attributes["groups"]
    return ProductLayer(step.name, Convolution(n, channels // groups, (height, width), groups), timed.rows)
