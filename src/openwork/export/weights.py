"""The weights that a model's quantizers round, as the integers that the file stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as integers: s8 of the weight's shape, with scale f32 [] or [C] along `axis`.

    name: the full name of the parameter that it comes from, or of its quantizer.
    """

    name: str
    integers: Tensor
    scale: Tensor
    axis: int | None


def quantizers(model: nn.Module) -> dict[str, FakeQuantize]:
    """The quantizers of the model by their first names; raises ValueError for one that has no scale yet."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantize)}
    for name, quantizer in found.items():
        if quantizer.mode == "observing" or (quantizer.mode != "disabled" and not _has_scale(quantizer)):
            raise ValueError(
                f"The quantizer {name} has no scale yet (its mode is {quantizer.mode!r}); calibrate the "
                "model with data that reaches it, or disable it, before exporting."
            )
    return found


def _has_scale(quantizer: FakeQuantize) -> bool:
    return quantizer.calibrated or quantizer.options.follow


def rounds_weight(quantizer: FakeQuantize) -> bool:
    """Whether the quantizer is one of a weight: those have the limits [-127, 127]."""
    return bool(quantizer.options.narrow)


@torch.no_grad()
def stored_weights(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, StoredWeight]:
    """What each quantizer of a weight is given while the model runs, as integers; by the quantizer's name.

    Raises ValueError where one is given two different weights, or the integers times their scale are not
    the very numbers that the model computes with.
    """
    watched = {name: q for name, q in quantizers(model).items() if rounds_weight(q) and q.mode != "disabled"}
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, quantizer in watched.items():
            handle = quantizer.register_forward_pre_hook(
                lambda module, arguments, name=name: _remember(seen, name, arguments[0])
            )
            stack.callback(handle.remove)
        model(**inputs)
    return {name: _stored(model, name, watched[name], weight) for name, weight in seen.items()}


def _remember(seen: dict[str, Tensor], name: str, weight: Tensor) -> None:
    if name in seen and not torch.equal(seen[name], weight):
        raise ValueError(f"The quantizer {name} rounds more than one weight, and a file stores one for each.")
    seen[name] = weight.detach()


def _stored(model: nn.Module, name: str, quantizer: FakeQuantize, weight: Tensor) -> StoredWeight:
    rounded = quantizer(weight)
    scale, _ = quantizer.scales()
    integers = quantizer.integers(weight)
    if not torch.equal(integers * _along(scale, quantizer.axis, weight.ndim), rounded):
        raise ValueError(
            f"The integers of {name} do not stand for the numbers that the model computes with; its scale "
            "changed between calls. Freeze the quantizers before exporting."
        )
    return StoredWeight(_parameter(model, name, weight), integers, scale, quantizer.axis)


def _along(scale: Tensor, axis: int | None, dimensions: int) -> Tensor:
    """The scale with the shape that multiplies a tensor of so many dimensions."""
    return scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(dimensions)])


def _parameter(model: nn.Module, name: str, weight: Tensor) -> str:
    """The parameter that the quantizer `name` rounds: its owner's `weight`, else the one of equal values."""
    owner, _, own = name.rpartition(".")
    for parameter, value in _candidates(model.get_submodule(owner), own):
        if value.shape == weight.shape and (own == "weight_quantizer" or torch.equal(value, weight)):
            return f"{owner}.{parameter}" if owner else parameter
    return name


def _candidates(module: nn.Module, quantizer: str) -> Iterator[tuple[str, Tensor]]:
    if quantizer == "weight_quantizer":
        yield "weight", module.get_parameter("weight")
    else:
        yield from module.named_parameters()
