"""BatchNorm folded into the layer before it, so that one INT8 layer is left of the two.

The arithmetic is `qdq/batch_norm.py`; here stands which module takes in which, and what a fold is checked by.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils import _pytree as pytree

from openwork.qdq.batch_norm import BatchNorm, Double, along_outputs
from openwork.quantization.fake_quantization.modules import Quantized
from openwork.quantization.fake_quantization.switches import in_float
from openwork.quantization.trace.arguments import Arguments
from openwork.quantization.trace.recording import Event, Recording, capture, record
from openwork.support.batches import Batch, evaluating

DENSE = "weight_dense"
"""Where a pruner with moving masks keeps the weights that the mask drops for now."""


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
    the model's inputs, in its `forward`'s form. Each layer's outputs on it are compared before and after.
    Returns one row for each BatchNorm. Raises ValueError if the outputs differ by more than rounding can
    explain.
    """
    with in_float(model):
        folds = tuple(plan(model, record(model, example)))
        chosen = [fold for fold in folds if fold.layer is not None]
        arguments = capture(model, [str(fold.layer) for fold in chosen], example)
        with evaluating(model):
            for fold in chosen:
                _fold(model, fold, arguments.pop(str(fold.layer)))
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


def statistics(norm: _BatchNorm) -> BatchNorm:
    """The statistics and parameters of a module, which must have running ones, as its folding needs them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma, beta = (None if x is None else _array(x) for x in (norm.weight, norm.bias))
    return BatchNorm(gamma, beta, _array(norm.running_mean), _array(norm.running_var), norm.eps)


def _array(x: Tensor) -> Double:
    array: Double = x.detach().cpu().double().numpy()
    return array


@torch.no_grad()
def _fold(model: nn.Module, fold: Fold, given: Arguments) -> None:
    assert fold.layer is not None
    layer, norm = model.get_submodule(fold.layer), model.get_submodule(fold.norm)
    assert isinstance(norm, _BatchNorm)
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    before = norm(layer(*given.args, **given.kwargs))
    magnitude = _bias_magnitude(norm, bias)
    fixed = statistics(norm)
    gain = torch.from_numpy(fixed.factor).to(weight.device)
    shift = torch.from_numpy(fixed.folded_bias(None if bias is None else _array(bias)))
    factors = torch.from_numpy(_along_outputs(layer, fixed.factor)).to(weight.device)
    weight.copy_(weight.double() * factors)
    dense = layer._buffers.get(DENSE)
    if dense is not None:
        dense.copy_(dense.double() * factors)
    if bias is None:
        layer.register_parameter("bias", nn.Parameter(shift.to(weight)))
    else:
        bias.copy_(shift)
    _rescale(layer, gain)
    _check(fold, layer, given, before, magnitude)
    _set(model, fold.norm)


def _along_outputs(layer: nn.Module, factor: Double) -> Double:
    """The factors in the shape of the layer's weight, 1 along the other axes."""
    shape = tuple(layer.get_parameter("weight").shape)
    if isinstance(layer, _ConvTransposeNd):
        return along_outputs(factor, shape, transposed=True, groups=layer.groups)
    return along_outputs(factor, shape)


def _rescale(layer: nn.Module, gain: Tensor) -> None:
    """Scales of a quantized weight follow its channels, so its integers stay what they were."""
    if not isinstance(layer, Quantized):
        return
    scale, _ = layer.weight_quantizer.scales()
    layer.weight_quantizer.load_scales(torch.where(gain == 0, scale.double(), scale * gain.abs()).float())


def _set(model: nn.Module, name: str) -> None:
    training = model.get_submodule(name).training
    model.set_submodule(name, nn.Identity().train(training))


def _bias_magnitude(norm: _BatchNorm, bias: Tensor | None) -> Tensor:
    """What the bias after folding is summed from, in magnitudes: f64 [C]."""
    assert norm.running_mean is not None
    gain = torch.from_numpy(statistics(norm).factor).to(norm.running_mean.device)
    total = norm.running_mean.double().abs() + (0 if bias is None else bias.double().abs())
    total = total * gain.abs()
    return total if norm.bias is None else total + norm.bias.double().abs()


def _check(fold: Fold, layer: nn.Module, given: Arguments, before: Tensor, bias: Tensor) -> None:
    after = layer(*given.args, **given.kwargs)
    bound = rounding_bound(layer, given, bias)
    worst = float(((after - before).abs() - bound).max())
    if not worst <= 0:
        raise ValueError(
            f"Folding {fold.norm} into {fold.layer} changed an output by {worst:.3g} more than rounding "
            'explains; keep the BatchNorms with batchnorm="keep".'
        )


def rounding_bound(layer: nn.Module, given: Arguments, bias: Tensor) -> Tensor:
    """How far the outputs before and after folding may lie apart by rounding, of the output's shape.

    A sum of n terms in any order is off by at most n u / (1 - n u) of the sum of their magnitudes, u being
    half a unit in the last place (Higham 2002, "Accuracy and Stability of Numerical Algorithms", section
    4.2). A folded layer sums its products and its bias, whose weights were rounded once more; the layer and
    its BatchNorm do so with four operations more. Both may be off, hence twice that.

    layer: folded. given: its arguments. bias: the magnitudes that the bias was summed from, [C].
    """
    weight = layer.get_parameter("weight")
    magnitudes = {"weight": weight.detach().abs(), "bias": bias.to(weight)}
    args = pytree.tree_map_only(Tensor, torch.abs, given.args)
    total: Tensor = torch.func.functional_call(layer, magnitudes, args, dict(given.kwargs))
    terms = _reduction(layer) + 8
    return 2 * terms * _unit(weight) * total


def _unit(x: Tensor) -> float:
    """Half a unit in the last place of what products of `x` are rounded to; 11 bits where TF32 is allowed."""
    tf32 = x.is_cuda and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return 2.0**-11 if tf32 and x.dtype == torch.float32 else torch.finfo(x.dtype).eps / 2


def _reduction(layer: nn.Module) -> int:
    """Products in one output: the weight's elements to an output channel, or to an input channel if more."""
    weight = layer.get_parameter("weight")
    return weight.numel() // max(min(weight.shape[:2]), 1)
