"""The arguments that a module was called with, kept for tracing it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

CONSTANTS = (type(None), bool, int, float, str, torch.dtype, torch.device)
"""What a traced module may be given beside tensors; the trace is checked to be given the same again."""


def is_constant(value: Any) -> bool:
    """Whether a value is a constant, or a tuple or list of such."""
    if isinstance(value, tuple | list):
        return all(is_constant(one) for one in value)
    return isinstance(value, CONSTANTS)


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in a nest of tuples, lists and mappings (those that torch knows how to flatten)."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def holds_tensor(value: Any) -> bool:
    """Whether there is a tensor in `value`."""
    return bool(tensors_in(value))


def copied(value: Any) -> Any:
    """The nest with every tensor cloned, so that an in-place operation leaves the original alone."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), value)


@dataclass(frozen=True)
class Arguments:
    """One call's positional and keyword arguments."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def copied(self) -> Arguments:
        """The same with cloned tensors."""
        return Arguments(copied(self.args), copied(dict(self.kwargs)))

    def bound(self, module: nn.Module, forward: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
        """Each parameter of `forward` but `self`, with the value that the call gives it.

        Arguments that `**kwargs` takes become keyword-only parameters of their own. Raises ValueError where
        `*args` takes any.
        """
        bound = inspect.signature(forward).bind(module, *self.args, **self.kwargs)
        bound.apply_defaults()
        pairs: list[tuple[inspect.Parameter, Any]] = []
        for parameter in list(bound.signature.parameters.values())[1:]:
            pairs += self._expanded(parameter, bound.arguments[parameter.name])
        return pairs

    def _expanded(self, parameter: inspect.Parameter, value: Any) -> list[tuple[inspect.Parameter, Any]]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            if value:
                raise ValueError(f"it takes {len(value)} arguments by *{parameter.name}")
            return []
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            only = inspect.Parameter.KEYWORD_ONLY
            return [(inspect.Parameter(name, only, default=_default(v)), v) for name, v in value.items()]
        return [(parameter, value)]


def _default(value: Any) -> Any:
    return None if holds_tensor(value) else value
