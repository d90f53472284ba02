"""The weights of a small model as the pruning methods take them."""

from __future__ import annotations

from torch import nn

from openwork.patterns.pattern import Pattern
from openwork.sparsity.masks.prunable import Prunable, weights_of
from openwork.sparsity.masks.view import WeightView


def prunables(model: nn.Module, pattern: str = "2:4") -> dict[str, Prunable]:
    """Every weight of `model` that has a view, by name."""
    found = {}
    for name, module, parameter in weights_of(model):
        view = WeightView.of(module, parameter)
        if view is not None:
            found[name] = Prunable(name, module, parameter, view, Pattern.parse(pattern))
    return found
