"""Arrays out of `.npy` and `.npz` files, and what is wrong with a file that holds none."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BEGINNINGS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")
"""Of a `.npy` file, of a `.npz` file, and of a `.npz` file without arrays. NumPy takes every other file for a
pickle and says so, which helps nobody who gave a text."""


def load_arrays(path: Path) -> Array | dict[str, Array]:
    """The array of a `.npy` file, or those of a `.npz` file by their names.

    Raises ValueError, saying what is wrong, for a path without a file and for a file that holds no arrays.
    """
    with _opened(path) as loaded:
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded


def array_names(path: Path) -> set[str] | None:
    """The names of a `.npz` file's arrays, None for a `.npy` file; raises as `load_arrays` does."""
    with _opened(path) as loaded:
        return set(loaded.files) if isinstance(loaded, np.lib.npyio.NpzFile) else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise ValueError(
            f"The calibration data are to be in {path}, but there is no such file or folder; give the path "
            "of a .npy or .npz file, or of a folder of them."
        )
    try:
        # Opened here, because NumPy leaves a file open that turns out to be broken.
        with path.open("rb") as file:
            _check_beginning(file)
            yield np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} holds no arrays that NumPy can read: {error}. Write numbers with numpy.save or "
            "numpy.savez."
        ) from error


def _check_beginning(file: BinaryIO) -> None:
    if not file.read(len(_BEGINNINGS[0])).startswith(_BEGINNINGS):
        raise ValueError("it is neither a .npy nor a .npz file, whatever its name says")
    file.seek(0)
