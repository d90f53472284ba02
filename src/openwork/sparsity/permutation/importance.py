"""How much each weight of a layer counts in the layer's output, from calibration inputs."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.calibrated.oneshot import Calibration, Method, prune_model
from openwork.sparsity.calibrated.reconstruction import Reconstructed, inverse_roots
from openwork.sparsity.calibrated.wanda import wanda_scores
from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.view import WeightView, full_name, weights_of


def output_importance(
    model: nn.Module, names: Collection[str], pattern: Pattern, calibration: Calibration
) -> dict[str, Tensor]:
    """What w^2 is to be multiplied with, f32 of each weight's shape, by the weights' qualified names.

    w_j^2 / [H^-1]_jj is what the layer's output loses where w_j is removed and the other weights make up for
    it (Hassibi & Stork 1993), H the second moments of its inputs; so SparseGPT, too, weighs what it removes.
    On MiniLM it ordered channels better than H_jj, which leaves the others as they are, and than w^2 alone.
    Each layer is scaled so that the sum over its weights is 1: layers whose outputs differ in size count
    alike. Raises ValueError for layers that never run and for inputs that are all zero or not finite.
    """
    layers, found = _prunables(model, names, pattern), {}

    def note(layer: Prunable, grams: Tensor) -> Reconstructed:
        found[layer.name] = _spread(layer, grams, calibration.damping)
        weight = layer.weight.detach()
        return Reconstructed(weight.clone(), torch.ones_like(weight, dtype=torch.bool), 0.0)

    prune_model(model, layers, calibration, lambda completed, note="": None, Method(False, note))
    return {name: found[layer.name] for name, layer in layers.items()}


def _prunables(model: nn.Module, names: Collection[str], pattern: Pattern) -> dict[str, Prunable]:
    found = {}
    for name, module, parameter in weights_of(model):
        view = WeightView.of(module, parameter)
        qualified = full_name(name, parameter) if parameter == "weight" else name
        if qualified in names and view is not None:
            found[qualified] = Prunable(name, module, parameter, view, pattern)
    return found


def _spread(layer: Prunable, grams: Tensor, damping: float) -> Tensor:
    weight = layer.weight.detach().float()
    roots = inverse_roots(grams, grams.shape[-1], damping)
    costs = torch.stack([1.0 / root.square().sum(dim=0) for root in roots])
    ones = torch.ones(layer.view.stacked, device=weight.device)
    importance = layer.view.restore(wanda_scores(ones, costs))
    total = float((weight.square() * importance).double().sum())
    return importance / total if total > 0 else importance
