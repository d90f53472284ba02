"""The element types of values and tensors, in one table."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype(np.uint8),
    "s8": np.dtype(np.int8),
    "u16": np.dtype(np.uint16),
    "i16": np.dtype(np.int16),
    "u32": np.dtype(np.uint32),
    "i32": np.dtype(np.int32),
    "u64": np.dtype(np.uint64),
    "i64": np.dtype(np.int64),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "bool": np.dtype(np.bool_),
    "text": np.dtype(np.object_),
}
"""Every type that a value of a program may have, by the name that programs and messages use."""

NATIVE_DTYPES = ("u8", "f32", "i64")
"""What flows between native steps; the others only between fallback steps."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a NumPy type: the table's, or NumPy's own for one that no program has."""
    return _NAMES.get(dtype.newbyteorder("="), dtype.name)
