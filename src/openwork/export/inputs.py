"""The example inputs of an export, by name, from any batch that quantization takes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from openwork.export.options import ExportOptions
from openwork.quantization.data.feeds import fitted

logger = logging.getLogger(__name__)

_KINDS = "a tensor, an array, a sequence of arguments, or a mapping of keyword arguments"


def example_inputs(model: nn.Module, batch: Any, options: ExportOptions) -> dict[str, Tensor]:
    """The tensors of a batch by the names that the model's `forward` gives them, on the model's device.

    batch: one tensor or array, a sequence of arguments or a mapping of keyword arguments, as `quantize` takes
    them; what `forward` does not take is left out with a warning. Raises TypeError for anything else, and
    ValueError where an input has no name, no example or one that is no tensor, and where an example cannot
    show that a dimension is free.
    """
    if isinstance(batch, str | bytes) or not isinstance(batch, Tensor | np.ndarray | Sequence | Mapping):
        raise TypeError(
            f"The example inputs of an export are one batch ({_KINDS}), but {type(batch).__name__} came; "
            "give one of the batches that the model was quantized with."
        )
    given = batch if isinstance(batch, Mapping | Sequence) else (batch,)
    kept = fitted(model, given)
    parameters = inspect.signature(model.forward).parameters
    named = kept if isinstance(kept, Mapping) else _by_name(tuple(kept), parameters)
    inputs = _tensors(named, parameters)
    _check_given(inputs, given, parameters)
    _check_free(inputs, options)
    if len(kept) < len(given):
        logger.warning(
            "The example holds %d values, but the model takes %d of them; the others are left out.",
            len(given),
            len(kept),
        )
    return inputs


def _by_name(values: Sequence[Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Positional arguments under the names of the parameters that take them."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters.values() if parameter.kind in kinds]
    if len(values) > len(names):
        raise ValueError(
            f"The example has {len(values)} arguments, but the model's forward names only "
            f"{', '.join(names) or 'none'} of those that it takes by position; an input of an ONNX model has "
            "a name, so give forward a parameter for each."
        )
    return dict(zip(names, values, strict=False))


def _tensors(named: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Tensor]:
    """The tensors; a None that is the parameter's default anyway is left out."""
    found: dict[str, Tensor] = {}
    for name, value in named.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif value is not None or name not in parameters or parameters[name].default is not None:
            raise ValueError(
                f"The example of {name} must be a tensor or an array, but it is {type(value).__name__}; an "
                "ONNX model has tensors for inputs, so build other values into the model."
            )
    return found


def _check_given(inputs: Mapping[str, Tensor], given: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError unless there is an example of every input that `forward` asks for."""
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in open_ended
        and parameter.name not in inputs
    ]
    if missing or not inputs:
        came = ", ".join(map(str, given)) if isinstance(given, Mapping) else f"{len(given)} by position"
        raise ValueError(
            "An export needs an example of every input by the name that `forward` gives it: there is none of "
            f"{', '.join(missing) or 'any'}; the examples that came are: {came or 'none'}."
        )


def _check_free(inputs: Mapping[str, Tensor], options: ExportOptions) -> None:
    """Raise ValueError where an example cannot show that a dimension is free, or there is none."""
    for name in options.dynamic_axes or {}:
        if name not in inputs:
            raise ValueError(f"dynamic_axes names the input {name}, of which there is no example.")
    for name, axes in options.axes(inputs).items():
        shape = list(inputs[name].shape)
        for axis, dimension in axes.items():
            if axis >= len(shape) or shape[axis] < 2:
                raise ValueError(
                    f"The example of {name} must be at least 2 long in its free dimension {axis} "
                    f"({dimension}), but its shape is {shape}; 1 is taken as fixed. Give a longer example, "
                    "or leave the dimension out of dynamic_axes."
                )
