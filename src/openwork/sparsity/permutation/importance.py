"""How much each weight of a layer counts in the layer's output, from calibration inputs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.calibrated.gram import GramCollector
from openwork.sparsity.calibrated.layer_inputs import readable, readers
from openwork.sparsity.calibrated.oneshot import Calibration, model_pass
from openwork.sparsity.calibrated.wanda import wanda_scores
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.view import WeightView, full_name, weights_of
from openwork.support.batches import evaluating


@torch.no_grad()
def output_importance(
    model: nn.Module, names: Collection[str], pattern: Pattern, calibration: Calibration
) -> dict[str, Tensor]:
    """What w^2 is to be multiplied with, f32 of each weight's shape, by the weights' qualified names.

    The mean square of the input that the weight meets, the diagonal of the layer's Hessian, as a part of the
    layer's whole: the sum over a layer of w^2 times this is 1, so that layers whose outputs differ in size
    count alike. Raises ValueError for layers that never run or whose inputs are all zero or not finite.
    """
    layers = _prunables(model, names, pattern)
    readable(model, {layer.name: layer for layer in layers.values()})
    found = {name: readers(model, layer) for name, layer in layers.items()}
    flat = {f"{name}[{i}]": each for name, own in found.items() for i, each in enumerate(own)}
    collector = GramCollector(flat, diagonal=True)
    run = model_pass(model, calibration)
    with (
        evaluating(model),
        torch.autocast("cpu", torch.bfloat16, enabled=calibration.in_bfloat16),
        collector.listening(),
    ):
        run(collector.begin, None)
    result = {}
    for name, layer in layers.items():
        norms = [collector.gram(f"{name}[{i}]") for i in range(len(found[name]))]
        seen = [each for each in norms if each is not None]
        if len(seen) < len(norms):
            raise ValueError(f"Calibration never ran {layer.name}; exclude it from the permutation.")
        result[name] = _spread(layer, torch.cat(seen))
    return result


def _prunables(model: nn.Module, names: Collection[str], pattern: Pattern) -> dict[str, Prunable]:
    found = {}
    for name, module, parameter in weights_of(model):
        view = WeightView.of(module, parameter)
        qualified = full_name(name, parameter) if parameter == "weight" else name
        if qualified in names and view is not None:
            found[qualified] = Prunable(name, module, parameter, view, pattern)
    return found


def _spread(layer: Prunable, norms: Tensor) -> Tensor:
    weight = layer.weight.detach().float()
    ones = torch.ones(layer.view.stacked, device=weight.device)
    importance = layer.view.restore(wanda_scores(ones, norms))
    total = float((weight.square() * importance).double().sum())
    return importance / total if total > 0 else importance
