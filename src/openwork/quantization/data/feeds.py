"""Batches as a torch model takes them, from what holds calibration data."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from openwork.quantization.data.files import array_names
from openwork.quantization.data.sources import Batches, Source
from openwork.support.batches import Batch

logger = logging.getLogger(__name__)


class Feed:
    """The batches of a source in the form of the model's `forward`, on the model's device.

    source: an iterable of batches (a list, a `DataLoader`), each a tensor or an array, a sequence of
    arguments or a mapping of keyword arguments; or one array or tensor [samples, ...], a mapping of such
    arrays, the path of a `.npy` or `.npz` file that holds them, or of a folder of such files (see
    `sources.Batches`). What a batch holds beyond the arguments of `forward`, such as labels, is left out
    with a warning.
    """

    def __init__(self, model: nn.Module, source: Source) -> None:
        self._model, self._told = model, False
        whole = isinstance(source, str | PathLike | np.ndarray | Mapping | Tensor)
        self._source: Any = Batches(source, _names(model, source)) if whole else source

    @property
    def total(self) -> int:
        """How many batches there are; 0 where that is not known."""
        if isinstance(self._source, Batches):
            return self._source.total
        return len(self._source) if hasattr(self._source, "__len__") else 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._source:
            yield self._fitted(batch)

    def _fitted(self, batch: Any) -> Batch:
        kept = fitted(self._model, batch)
        if _size(kept) < _size(batch) and not self._told:
            self._told = True
            logger.warning(
                "A batch holds %d values, but the model takes %d of them; the others are left out.",
                _size(batch),
                _size(kept),
            )
        return kept


def fitted(model: nn.Module, batch: Any) -> Batch:
    """One batch without what `forward` does not take, its arrays as tensors on the model's device."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = [parameter.kind for parameter in parameters]
    if isinstance(batch, Mapping) and inspect.Parameter.VAR_KEYWORD not in kinds:
        names = {parameter.name for parameter in parameters}
        batch = {name: value for name, value in batch.items() if name in names}
    elif isinstance(batch, Sequence) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        batch = tuple(batch)[: len(kinds)]
    elif isinstance(batch, Mapping):
        batch = dict(batch)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    tensors = pytree.tree_map_only(np.ndarray, torch.from_numpy, batch)
    moved: Batch = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), tensors)
    return moved


def _size(batch: Any) -> int:
    return len(batch) if isinstance(batch, Mapping | Sequence) else 1


def _names(model: nn.Module, source: Any) -> list[str]:
    """The arguments of `forward` that the source has by name, else those without a default."""
    parameters = inspect.signature(model.forward).parameters.values()
    held = _held(source)
    if held is not None:
        return [parameter.name for parameter in parameters if parameter.name in held] or sorted(held)
    first = [parameter.name for parameter in parameters][:1]
    return [p.name for p in parameters if p.default is inspect.Parameter.empty] or first


def _held(source: Any) -> set[str] | None:
    """The names of a source's arrays; None where it has one array without a name."""
    if isinstance(source, Mapping):
        return {str(name) for name in source}
    if not isinstance(source, str | PathLike):
        return None
    path = Path(source)
    files = sorted(path.glob("*.np[yz]")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".npz" or not files[0].is_file():
        return None
    return array_names(files[0])
