"""BatchNorm folded into the layer before it, so that one INT8 layer is left of the two.

    (W x + b - mean) * gain + beta = (gain W) x + (b - mean) * gain + beta
    gain = gamma / sqrt(variance + eps)

Each output channel of the weight is scaled, so zeros stay zeros and a mask holds. Source: Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from openwork.batches import Batch, run_batch
from openwork.quantization.modules import Quantized
from openwork.quantization.placement.arguments import tensors_in
from openwork.quantization.placement.operations import module_kind
from openwork.quantization.placement.recording import Event, Recording, evaluating, record
from openwork.quantization.switching import in_float

DENSE = "weight_dense"
"""Where a pruner with moving masks keeps the weights that the mask drops for now."""

UNIT = 2.0**-24
"""Half a unit in the last place of a binary32 number near 1."""


@dataclass(frozen=True)
class Fold:
    """Whether one BatchNorm goes into the layer before it; the reason is the end of a sentence."""

    norm: str
    layer: str | None
    reason: str


def fold_batchnorm(model: nn.Module, example: Batch) -> tuple[Fold, ...]:
    """Fold every BatchNorm that follows a Linear, Conv or ConvTranspose and nothing else reads, in place.

    The folded BatchNorm becomes `nn.Identity`; the layer gets a bias where it had none. The integers of a
    quantized layer's weight stay what they are, as its scales take the factors in. example: one batch of
    the model's inputs, in its `forward`'s form. The model's outputs on it are compared before and after.
    Returns one row for each BatchNorm. Raises ValueError if the outputs differ by more than rounding can
    explain.
    """
    with in_float(model):
        recording = record(model, example)
        folds = tuple(plan(model, recording))
        done = [fold for fold in folds if fold.layer is not None]
        for fold in done:
            _fold(model, fold)
        if done:
            _verify(model, example, recording.outputs, done)
    return folds


def plan(model: nn.Module, recording: Recording) -> list[Fold]:
    """One row for each BatchNorm of the model, by what the example run shows."""
    made = {event.output.serial: event for event in recording.events if event.output is not None}
    calls: dict[str, list[Event]] = {}
    for event in recording.events:
        calls.setdefault(event.owner, []).append(event)
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    return [_planned(model, recording, name, calls, made) for name in norms]


def _planned(
    model: nn.Module,
    recording: Recording,
    name: str,
    calls: dict[str, list[Event]],
    made: dict[int, Event],
) -> Fold:
    norm = model.get_submodule(name)
    events = calls.get(name, [])
    if len(events) != 1:
        return Fold(name, None, f"runs {len(events)} times in the example, so no one layer can take it in")
    read = events[0].inputs[0]
    source = None if read is None else made.get(read.serial)
    if read is None or source is None or source.kind != "weighted":
        return Fold(name, None, "does not follow a Linear, Conv or ConvTranspose layer directly")
    layer = model.get_submodule(source.owner)
    readers = recording.consumers[read.serial]
    shared = shared_parameters(model, layer)
    reason = _refusal(norm, layer, source, len(calls[source.owner]), readers, shared)
    if not reason and isinstance(layer, nn.Linear) and len(read.shape) != 2:
        reason = f"normalizes another axis than the output channels of {source.owner}"
    return Fold(name, None if reason else source.owner, reason or f"folded into {source.owner}")


def _refusal(
    norm: nn.Module, layer: nn.Module, source: Event, calls: int, readers: list[str], shared: bool
) -> str | None:
    assert isinstance(norm, _BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        return "has no running statistics to fold"
    layer_output = getattr(layer, "output_quantizer", None)
    if layer_output is not None:
        return f"follows {source.owner}, whose output is quantized before it"
    if shared:
        return f"follows {source.owner}, whose parameters other layers share"
    if isinstance(layer, Quantized) and isinstance(layer, _ConvTransposeNd) and layer.groups > 1:
        return f"follows {source.owner}, whose groups share the scales of their weights"
    if calls != 1:
        return f"follows {source.owner}, which runs {calls} times in the example"
    if len(readers) != 1:
        return f"is not alone in reading {source.owner}: {', '.join(readers)} do"
    return None


def shared_parameters(model: nn.Module, layer: nn.Module) -> bool:
    """Whether another module of the model holds a parameter of the layer too."""
    mine = {id(parameter) for parameter in layer.parameters(recurse=False)}
    owners = [module for module in model.modules() if mine & {id(p) for p in module._parameters.values()}]
    return len(owners) > 1


def gain_and_shift(norm: _BatchNorm, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """What each channel is multiplied by, and the bias after folding, f64 [C] both."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    gain = gain if norm.weight is None else gain * norm.weight.double()
    shift = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean.double()
    shift = shift * gain
    return gain, shift if norm.bias is None else shift + norm.bias.double()


@torch.no_grad()
def _fold(model: nn.Module, fold: Fold) -> None:
    assert fold.layer is not None
    layer, norm = model.get_submodule(fold.layer), model.get_submodule(fold.norm)
    assert isinstance(norm, _BatchNorm)
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    gain, shift = gain_and_shift(norm, bias)
    factors = _along_outputs(layer, gain)
    weight.copy_(weight.double() * factors)
    dense = layer._buffers.get(DENSE)
    if dense is not None:
        dense.copy_(dense.double() * factors)
    if bias is None:
        layer.register_parameter("bias", nn.Parameter(shift.to(weight)))
    else:
        bias.copy_(shift)
    _rescale(layer, gain)
    _set(model, fold.norm)


def _along_outputs(layer: nn.Module, gain: Tensor) -> Tensor:
    """The gains in the shape of the layer's weight, 1 along the other axes."""
    weight = layer.get_parameter("weight")
    if not isinstance(layer, _ConvTransposeNd):
        return gain.reshape(-1, *[1] * (weight.dim() - 1))
    groups = gain.reshape(layer.groups, 1, -1)
    spread = groups.expand(-1, weight.shape[0] // layer.groups, -1).reshape(weight.shape[:2])
    return spread.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))


def _rescale(layer: nn.Module, gain: Tensor) -> None:
    """Scales of a quantized weight follow its channels, so its integers stay what they were."""
    if not isinstance(layer, Quantized):
        return
    scale, _ = layer.weight_quantizer.scales()
    layer.weight_quantizer.load_scales(torch.where(gain == 0, scale.double(), scale * gain.abs()).float())


def _set(model: nn.Module, name: str) -> None:
    training = model.get_submodule(name).training
    model.set_submodule(name, nn.Identity().train(training))


@torch.no_grad()
def _verify(model: nn.Module, example: Batch, before: Any, done: list[Fold]) -> None:
    with evaluating(model):
        after = run_batch(model, example)
    layers = sum(
        module_kind(module) is not None or isinstance(module, Quantized) for module in model.modules()
    )
    longest = max(_reduction(model.get_submodule(fold.layer or "")) for fold in done)
    for old, new in zip(_floats(before), _floats(after), strict=True):
        error = float((old.double() - new.double()).norm())
        unit = torch.finfo(old.dtype).eps / 2
        bound = tolerance(layers, longest, unit) * float(old.double().norm())
        if not error <= bound:
            raise ValueError(
                f"Folding BatchNorm into {', '.join(str(fold.layer) for fold in done[:3])}... changed the "
                f"model's output by {error:.3g} (norm), more than the {bound:.3g} that rounding explains; "
                'keep the BatchNorms with batchnorm="keep".'
            )


def tolerance(layers: int, reduction: int, unit: float = UNIT) -> float:
    """The relative error that folding may cause by rounding, of the outputs' norm.

    A sum of k products is off by at most k u relative to the sum of their magnitudes, u = 2^-24 in binary32,
    and typically by sqrt(k) u; folding rounds every weight once more and so changes each layer by a few such
    errors, which later layers pass on at about their relative size. 16 sqrt(k) u for each layer leaves room
    for cancellation. A wrong fold changes outputs by their own size.
    """
    return 16.0 * layers * math.sqrt(reduction) * unit


def _reduction(layer: nn.Module) -> int:
    weight = layer.get_parameter("weight")
    return weight.numel() // min(weight.shape[:2]) if weight.numel() else 1


def _floats(nest: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(nest) if tensor.is_floating_point()]
