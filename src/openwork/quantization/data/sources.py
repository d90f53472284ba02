"""Calibration data from wherever it lies: iterables, arrays, `.npz` files, folders of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.quantization.data.files import load_arrays

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Source = str | PathLike[str] | Array | Mapping[str, Array] | Iterable[Any]

BATCH = 8
"""Rows of a batch where a source holds many samples in one array."""


class Batches:
    """The batches of a source, each a mapping of input names to arrays; may be run through more than once
    where the source allows it.

    source: an iterable of batches (a list, a `DataLoader`), where a batch is one array, a sequence of
    arrays in the order of the inputs, or a mapping of input names to arrays; or one array [samples, ...],
    or a mapping of such arrays, or the path of a `.npy` or `.npz` file that holds them: cut into batches of
    `batch` samples; or the path of a folder of such files, each of which is one batch, in the order of
    their names. names: of the model's inputs, in order. batch: how many samples make a batch. whole: leave
    a last batch of fewer samples out.
    """

    def __init__(self, source: Source, names: Sequence[str], batch: int = BATCH, whole: bool = False) -> None:
        if batch < 1:
            raise ValueError(f"A batch has at least one sample, but {batch} were asked for.")
        self._source, self._names, self._batch = _opened(source), tuple(names), batch
        self._whole, self._told = whole, False

    def __iter__(self) -> Iterator[dict[str, Array]]:
        if isinstance(self._source, Mapping | np.ndarray):
            yield from self._cut(self._named(self._source))
            return
        for item in self._source:
            yield self._named(load_arrays(item) if isinstance(item, Path) else item)

    @property
    def total(self) -> int:
        """How many batches there are; 0 where that is not known."""
        source = self._source
        if isinstance(source, Mapping | np.ndarray):
            return -(-_samples(self._named(source)) // self._batch)
        return len(source) if hasattr(source, "__len__") else 0

    def _cut(self, arrays: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        samples = _samples(arrays)
        if self._whole and samples < self._batch:
            raise ValueError(f"The model takes {self._batch} samples at once, but the data hold {samples}.")
        end = samples - samples % self._batch if self._whole else samples
        for start in range(0, end, self._batch):
            yield {name: array[start : start + self._batch] for name, array in arrays.items()}

    def _named(self, item: Any) -> dict[str, Array]:
        if isinstance(item, Mapping):
            return self._checked({str(name): _array(value) for name, value in item.items()})
        if isinstance(item, tuple | list):
            return self._in_order([_array(value) for value in item])
        return self._in_order([_array(item)])

    def _checked(self, arrays: dict[str, Array]) -> dict[str, Array]:
        missing = [name for name in self._names if name not in arrays]
        if missing:
            raise ValueError(
                f"The calibration data lack the input {', '.join(map(repr, missing))}; the model's inputs "
                f"are {', '.join(self._names)}, and the data are named {', '.join(arrays) or 'nothing'}."
            )
        self._tell([name for name in arrays if name not in self._names])
        return {name: arrays[name] for name in self._names}

    def _in_order(self, arrays: list[Array]) -> dict[str, Array]:
        if len(arrays) < len(self._names):
            raise ValueError(
                f"A batch of calibration data holds {len(arrays)} arrays, but the model has the "
                f"{len(self._names)} inputs {', '.join(self._names)}; give one for each, in this order or "
                "by name."
            )
        extra = len(arrays) - len(self._names)
        self._tell([f"the last {extra} of each batch"] if extra else [])
        return dict(zip(self._names, arrays, strict=False))

    def _tell(self, ignored: list[str]) -> None:
        if ignored and not self._told:
            logger.warning(
                "The model has no input for %s of the calibration data; left out.", ", ".join(ignored)
            )
            self._told = True


def _opened(source: Source) -> Any:
    if isinstance(source, str | PathLike):
        path = Path(source)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in (".npy", ".npz"))
            if not files:
                raise ValueError(f"The folder {path} holds no .npy or .npz file to calibrate with.")
            return files
        return load_arrays(path)
    if isinstance(source, Mapping | np.ndarray):
        return source
    if hasattr(source, "detach"):
        return _array(source)
    if not isinstance(source, Iterable):
        raise TypeError(
            "Calibration data are an iterable of batches, an array, a mapping of arrays, or the path of a "
            f".npz file or folder, but {type(source).__name__} came."
        )
    return source


def _array(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _samples(arrays: Mapping[str, Array]) -> int:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"The arrays of calibration data hold different or no numbers of samples: {shown}.")
    return next(iter(counts.values()), 0)
