"""Cross-layer equalization of a torch model: channels of very different ranges brought to like ones.

The tensor between two layers has one INT8 scale, set by its widest channel; where others are a hundred times
narrower they keep a level or two. Scaling moves between the layers at no cost (see `channel_scaling`), before
any quantizer is there. Zeros stay zeros, so masks hold. Source: Nagel et al. 2019, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from openwork.quantization.corrections.batch_norm import DENSE
from openwork.quantization.corrections.channel_axis import channel_axis
from openwork.quantization.corrections.channel_scaling import (
    Form,
    Link,
    balance,
    grouped,
    scale_inputs,
    scale_outputs,
    ungrouped,
)
from openwork.quantization.corrections.equalization_links import find_links
from openwork.quantization.trace.arguments import tensors_in
from openwork.quantization.trace.operations import module_kind
from openwork.quantization.trace.recording import record
from openwork.support.batches import Batch, evaluating, run_batch


@dataclass(frozen=True)
class Equalized:
    """Whether the channels between two layers were equalized; the reason says how, or why not."""

    first: str
    second: str
    done: bool
    reason: str


def equalize(
    model: nn.Module, example: Batch, ranges: Literal["weights", "activations"] = "weights"
) -> tuple[Equalized, ...]:
    """Equalize the channels between every two layers that allow it, in place.

    Two layers (Linear, Conv, depthwise or grouped too, ConvTranspose) allow it where the second alone reads
    what the first gives, through nothing but functions with f(s x) = s f(x): ReLU, leaky ReLU, PReLU,
    pooling, flattening. BatchNorm is to be folded before. example: one batch of the model's inputs; the
    outputs on it are compared before and after, and everything is put back where they differ by more than
    rounding can explain. ranges: of the first side, those of the weights, as the source does,
    or of the tensor between on the example. Returns a row for each two layers in a row.
    """
    recording = record(model, example)
    rows, links = find_links(model, recording)
    found = [Equalized(first, second, False, reason) for first, second, reason in rows]
    if not links:
        return tuple(found)
    layers = {name: model.get_submodule(name) for link in links for name in (link.first, link.second)}
    between = _between(model, example, links) if ranges == "activations" else [None] * len(links)
    factors = balance({name: _weight(layer) for name, layer in layers.items()}, links, between)
    kept = {name: _kept(layer) for name, layer in layers.items()}
    _apply(layers, links, factors)
    broken = _broken(model, example, recording.outputs, layers)
    if broken:
        for name, layer in layers.items():
            _restore(layer, kept[name])
    done = [row(link, factor, broken) for link, factor in zip(links, factors, strict=True)]
    return (*found, *done)


def row(link: Link, factors: Tensor, broken: str = "") -> Equalized:
    """The row of a link. broken: why its factors were taken back."""
    low, high = float(factors.amin()), float(factors.amax())
    how = f"{len(factors)} channels scaled by {low:.3g} to {high:.3g}"
    return Equalized(link.first, link.second, not broken, broken or how)


def form(layer: nn.Module) -> tuple[Form, int]:
    """What kind of weight a layer has, and its groups."""
    if isinstance(layer, _ConvTransposeNd):
        return "conv_transpose", layer.groups
    return ("conv", layer.groups) if isinstance(layer, _ConvNd) else ("linear", 1)


def _weight(layer: nn.Module) -> Tensor:
    return grouped(layer.get_parameter("weight").detach().double(), *form(layer))


@torch.no_grad()
def _apply(layers: Mapping[str, nn.Module], links: Sequence[Link], factors: Sequence[Tensor]) -> None:
    """Each weight is rounded once, however many links scale it."""
    outputs = {link.first: factor for link, factor in zip(links, factors, strict=True)}
    inputs = {link.second: (factor, link.repeat) for link, factor in zip(links, factors, strict=True)}
    for name, layer in layers.items():
        by = None if name not in outputs else 1 / outputs[name]
        for tensor in _weights(layer):
            tensor.copy_(_scaled(tensor, layer, by, inputs.get(name)))
        bias = layer._parameters.get("bias")
        if bias is not None and by is not None:
            bias.copy_(bias.double() * by)


def _scaled(
    tensor: Tensor, layer: nn.Module, outputs: Tensor | None, inputs: tuple[Tensor, int] | None
) -> Tensor:
    kind, groups = form(layer)
    weight = grouped(tensor.detach().double(), kind, groups)
    weight = weight if outputs is None else scale_outputs(weight, outputs)
    weight = weight if inputs is None else scale_inputs(weight, *inputs)
    return ungrouped(weight, kind, tensor.shape)


def _weights(layer: nn.Module) -> list[Tensor]:
    """The weight, and the dense one that a pruner with moving masks keeps beside it."""
    dense = layer._buffers.get(DENSE)
    return [layer.get_parameter("weight"), *([] if dense is None else [dense])]


def _kept(layer: nn.Module) -> list[Tensor]:
    bias = layer._parameters.get("bias")
    return [tensor.detach().clone() for tensor in (*_weights(layer), *([] if bias is None else [bias]))]


@torch.no_grad()
def _restore(layer: nn.Module, kept: Sequence[Tensor]) -> None:
    bias = layer._parameters.get("bias")
    for tensor, old in zip((*_weights(layer), *([] if bias is None else [bias])), kept, strict=True):
        tensor.copy_(old)


def _between(model: nn.Module, example: Batch, links: Sequence[Link]) -> list[Tensor | None]:
    """The largest |x| of each channel of what the second layers read, on the example."""
    with _watching(model, links) as seen, evaluating(model), torch.no_grad():
        run_batch(model, example)
    return [seen[link.second] for link in links]


@contextmanager
def _watching(model: nn.Module, links: Sequence[Link]) -> Iterator[dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}
    handles = []
    for link in links:
        layer = model.get_submodule(link.second)

        def keep(module: nn.Module, args: tuple[Any, ...], link: Link = link) -> None:
            x = args[0].detach().double().abs()
            axis = channel_axis(module, x)
            rows = x.movedim(axis, -1).flatten(0, -2)
            seen[link.second] = rows.amax(0).reshape(-1, link.repeat).amax(1)

        handles.append(layer.register_forward_pre_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _broken(model: nn.Module, example: Batch, before: Any, layers: Mapping[str, nn.Module]) -> str:
    """Why the model no longer computes what it did; "" where it does."""
    with evaluating(model):
        after = run_batch(model, example)
    depth = sum(module_kind(module) is not None for module in model.modules())
    longest = max(layer.get_parameter("weight")[0].numel() for layer in layers.values())
    for old, new in zip(tensors_in(before), tensors_in(after), strict=True):
        if not old.is_floating_point():
            continue
        error = float((old.double() - new.double()).norm())
        bound = tolerance(depth, longest, old.dtype) * float(old.double().norm())
        if not error <= bound:
            return (
                f"put back: with all pairs scaled the model's output moved by {error:.3g} (norm), more than "
                f"the {bound:.3g} that rounding explains"
            )
    return ""


def tolerance(layers: int, reduction: int, dtype: torch.dtype) -> float:
    """The relative error that scaled weights may cause by rounding, of the norm of an output.

    A sum of k products is off by at most k u relative to the sum of their magnitudes, and typically by
    sqrt(k) u, with u half a unit in the last place; a scaled weight is rounded once more, which changes each
    layer by a few such errors, and later layers pass them on at about their relative size. 16 sqrt(k) u for
    each layer leaves room for cancellation. Scales that do not cancel change outputs by their own size.
    """
    return 16.0 * layers * math.sqrt(reduction) * torch.finfo(dtype).eps / 2
