"""The pruned weights of another module of the same structure, such as a model's average over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.view import parameter_of


def twins_of(prunables: Mapping[str, Prunable], model: nn.Module, other: nn.Module) -> list[Prunable]:
    """The weights of `other` that stand where the prunable ones of `model` stand, in their order.

    other: a copy of the model, or a wrapper that holds one as `module`.
    Raises ValueError if it lacks one of the weights.
    """
    for root in (other, getattr(other, "module", None)):
        if isinstance(root, nn.Module):
            found = [_twin(own, model, root) for own in prunables.values()]
            if None not in found:
                return [twin for twin in found if twin is not None]
    raise ValueError("The other module lacks some of the pruned weights; pass a copy of the pruner's model.")


def _twin(own: Prunable, model: nn.Module, root: nn.Module) -> Prunable | None:
    path = next(path for path, module in model.named_modules() if module is own.module)
    try:
        module = root.get_submodule(path)
    except AttributeError:
        return None
    weight = parameter_of(module, own.parameter)
    fits = weight is not None and weight.shape == own.weight.shape
    return replace(own, module=module) if fits else None
