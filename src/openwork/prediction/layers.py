"""The products of a model: of an ONNX file as the builder reads it, of an engine file, or as given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from openwork.backends.backend import Tensors
from openwork.backends.registry import backends
from openwork.builder.faults import DraftError, drafting
from openwork.builder.free_sizes import known_sizes
from openwork.builder.lower import lower
from openwork.engine.engine_file import read_engine
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


@dataclass(frozen=True)
class Products:
    """The products of a model, and sentences on sizes that could not be found."""

    layers: tuple[ProductLayer, ...]
    notes: tuple[str, ...] = ()


def products_of(model: Source | Iterable[ProductLayer], shape: Shape | None) -> Products:
    """The products of a model.

    model : the path of an ONNX model (.onnx) or of an engine, or the layers themselves. shape : one size per
    free dimension of the inputs; default the last one that a build times at. Layers have their rows, and no
    shape.
    Raises ValueError, in a sentence, for a model that cannot be read or has no product, and TypeError for
    what is no model.
    """
    if not isinstance(model, (str, os.PathLike)):
        return Products(_given(model, shape))
    path = Path(model)
    program, tensors = _of_onnx(path) if path.suffix == ".onnx" else _of_engine(path)
    sizes = free_sizes(program, None if shape is None else [shape])[-1]
    # Those too of what steps make: images behind a stride, rows that are batch and length together.
    known = known_sizes(program, tensors, [sizes])
    found = tuple(_layer(step, program, known.sizes[0]) for step in program.steps if step.tactics)
    if not found:
        raise ValueError(f"{path.name} has no product with weights in a native step, so no pattern gains.")
    return Products(found, known.notes)


def _given(layers: Iterable[ProductLayer], shape: Shape | None) -> tuple[ProductLayer, ...]:
    found = tuple(layers) if isinstance(layers, Iterable) else (layers,)
    for layer in found:
        if not isinstance(layer, ProductLayer):
            raise TypeError(
                f"A prediction is for the path of a model or for ProductLayers, but one is {layer!r}, of the "
                f"type {type(layer).__name__}."
            )
    if shape is not None:
        raise ValueError("Layers that are given have their own rows: give no shape beside them.")
    if not found:
        raise ValueError("There is no layer to predict; give at least one.")
    return found


def _of_onnx(path: Path) -> tuple[Program, Tensors]:
    """The steps of a model as the builder makes them, before anything is decided, and their tensors."""
    model = read(path)
    try:
        with drafting("Making native operators of the model"):
            reduced, _, _ = reduce(model)
        with drafting("Making steps of the model"):
            lowered = lower(reduced, backends(None))
    except DraftError as error:
        raise error.cause from error.cause.__cause__
    return lowered.program, lowered.tensors


def _of_engine(path: Path) -> tuple[Program, Tensors]:
    file = read_engine(path)
    return file.program, file.tensors


def _layer(step: Step, program: Program, sizes: dict[str, int]) -> ProductLayer:
    (timed,) = timed_sizes(step, program, [sizes])
    channels, n = (int(program.values[i or 0].shape[-1]) for i in (step.inputs[0], step.outputs[0]))
    if "kernel" not in step.attributes:
        return ProductLayer(step.name, MatrixProduct(n, channels), timed.rows)
    height, width = step.attributes["kernel"]
    groups = step.attributes["groups"]
    return ProductLayer(step.name, Convolution(n, channels // groups, (height, width), groups), timed.rows)
