"""A batch of a model's inputs, however the caller holds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Batch = Tensor | Sequence[Any] | Mapping[str, Any]
"""One tensor, the positional arguments, or the keyword arguments of a forward pass."""
Keep = Callable[[Any], Tensor]
"""Gives, for a batch, which rows of its inputs count: for token models [batch, length]."""


def run_batch(model: nn.Module, batch: Batch) -> Any:
    """The model's output for a batch."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch) if isinstance(batch, Tensor) else model(*batch)


def kept_rows(model: nn.Module, batch: Batch, keep: Keep | None) -> Tensor | None:
    """Which rows of a batch count, as bool: what `keep` says, else the model's argument named
    `attention_mask`, else None for all.
    """
    return keep(batch).bool() if keep else _attention_mask(model, batch)


def _attention_mask(model: nn.Module, batch: Batch) -> Tensor | None:
    if isinstance(batch, Tensor):
        return None
    if not isinstance(batch, Mapping):
        batch = dict(zip(inspect.signature(model.forward).parameters, batch, strict=False))
    return batch["attention_mask"].bool() if "attention_mask" in batch else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and each of its modules as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
