"""Saving and loading a pruner's own state: step, scores, dense weights. Masks travel with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from openwork.sparsity.masks.sharded_tensors import full, like
from openwork.sparsity.pruner.state import PrunerState

VERSION = 1


def save(pruner: PrunerState) -> dict[str, Any]:
    """Plain values and whole CPU tensors; `torch.load(weights_only=True)` reads them back."""
    return {
        "version": VERSION,
        "steps": pruner.steps,
        **_identity(pruner),
        "scores": {name: {k: _stored(t) for k, t in state.items()} for name, state in pruner.scores.items()},
        "dense": {name: _stored(weight) for name, weight in pruner.dense.items()},
    }


def load(pruner: PrunerState, state: Mapping[str, Any]) -> None:
    """Put a state into a pruner; raises ValueError, and changes nothing, where it does not belong to it."""
    _check(pruner, state)
    pruner.scores = {
        name: {key: _held(pruner, name, tensor) for key, tensor in tensors.items()}
        for name, tensors in state["scores"].items()
    }
    pruner.dense = {name: _held(pruner, name, tensor) for name, tensor in state["dense"].items()}
    pruner.steps = int(state["steps"])


def _identity(pruner: PrunerState) -> dict[str, Any]:
    return {
        "schedule": str(pruner.schedule),
        "criterion": str(pruner.criterion),
        "patterns": {name: str(prunable.pattern) for name, prunable in pruner.prunables.items()},
    }


def _check(pruner: PrunerState, state: Mapping[str, Any]) -> None:
    missing = {"version", "steps", "schedule", "criterion", "patterns", "scores", "dense"} - set(state)
    if missing or state["version"] != VERSION:
        raise ValueError(
            f"This is not a pruner's state of version {VERSION}: "
            + (
                f"it lacks {', '.join(sorted(missing))}."
                if missing
                else f"its version is {state['version']}."
            )
        )
    for what, ours in _identity(pruner).items():
        if state[what] != ours:
            raise ValueError(
                f"The state was saved by a pruner with another {what}: {_difference(state[what], ours)}. "
                "Make the pruner as it was made when the state was saved."
            )
    for name, tensor in _tensors(state):
        if name not in pruner.prunables or tensor.shape != pruner.prunables[name].weight.shape:
            raise ValueError(
                f"The state holds a tensor of shape {list(tensor.shape)} for {name}, which is no weight of "
                "this pruner of that shape; it was saved with another model."
            )


def _difference(theirs: Any, ours: Any) -> str:
    if not isinstance(ours, dict) or not isinstance(theirs, Mapping):
        return f'"{theirs}" there, "{ours}" here'
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    first = names[0]
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{first} has {theirs.get(first, 'none')} there, {ours.get(first, 'none')} here{more}"


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    scores = [(name, tensor) for name, tensors in state["scores"].items() for tensor in tensors.values()]
    return scores + list(state["dense"].items())


def _stored(tensor: Tensor) -> Tensor:
    return full(tensor).cpu().clone()


def _held(pruner: PrunerState, name: str, tensor: Tensor) -> Tensor:
    return like(torch.clone(tensor), pruner.prunables[name].weight)
