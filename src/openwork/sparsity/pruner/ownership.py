"""One pruner for a weight at a time: two would undo each other's masks."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import nn

from openwork.sparsity.masks.prunable import Prunable

_OWNERS: weakref.WeakKeyDictionary[nn.Module, dict[str, weakref.ref[object]]] = weakref.WeakKeyDictionary()


def claim(prunables: Iterable[Prunable], owner: object) -> None:
    """Make `owner` the pruner of these weights until it is released or forgotten.

    Raises ValueError, before anything changes, if another living pruner holds one of them.
    """
    prunables = list(prunables)
    for prunable in prunables:
        held = _OWNERS.get(prunable.module, {}).get(prunable.parameter)
        other = held() if held else None
        if other is not None and other is not owner:
            raise ValueError(
                f"{prunable.name} is pruned by another Pruner ({other}); two would undo each other's masks. "
                "Use that one, or call its detach() first."
            )
    for prunable in prunables:
        _OWNERS.setdefault(prunable.module, {})[prunable.parameter] = weakref.ref(owner)


def release(prunables: Iterable[Prunable], owner: object) -> None:
    """Let go of these weights where `owner` holds them."""
    for prunable in prunables:
        held = _OWNERS.get(prunable.module, {})
        reference = held.get(prunable.parameter)
        if reference is not None and reference() is owner:
            del held[prunable.parameter]
