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

FLOATS = frozenset({"f16", "bf16", "f32", "f64"})
"""Of all type names those of floats."""

STORED: dict[str, np.dtype[Any]] = {
    "u8": np.dtype(np.uint8),
    "s8": np.dtype(np.int8),
    "bf16": np.dtype(np.uint16),
    "f32": np.dtype(np.float32),
}
"""The types of stored tensors; of BF16 the bits stand in uint16, which no stored tensor is of."""

ELEMENTS = {np.dtype(np.int8): "i8", np.dtype(np.uint16): "bf16", np.dtype(np.float32): "f32"}
"""What a product with stored weights of a type multiplies, as tactics name it."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_STORED_NAMES = {dtype: name for name, dtype in STORED.items()}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a NumPy type: the table's, or NumPy's own for one that no program has."""
    return _NAMES.get(dtype.newbyteorder("="), dtype.name)


def stored_dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of a stored tensor's type."""
    return _STORED_NAMES.get(dtype.newbyteorder("="), dtype.name)
