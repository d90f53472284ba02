"""The ways in which an engine stores an INT8 weight: dense, by an N:M pattern, or by a bitmap.

Each is a few arrays; an engine names them by the weight's name and a suffix (docs/program.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openwork.patterns import bitmap, compressed
from openwork.patterns.bitmap import Bitmap
from openwork.patterns.compressed import Compressed
from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern

Weight = NDArray[np.int8] | Compressed | Bitmap
Arrays = Mapping[str, NDArray[Any]]


def store(weight: NDArray[np.int8], pattern: Pattern | None) -> Weight:
    """The smallest form that holds a weight s8 [n, k] of a pattern; dense where it has none.

    Raises ValueError where the weight breaks an N:M pattern.
    """
    if isinstance(pattern, GroupPattern):
        return compressed.compress(weight, pattern.kept, pattern.group)
    return bitmap.compress(weight) if isinstance(pattern, BlockPattern) else np.ascontiguousarray(weight)


def dense(weight: Weight) -> NDArray[np.int8]:
    """The weight s8 [n, k] itself; raises ValueError unless its form is the canonical one."""
    if isinstance(weight, Compressed):
        return compressed.decompress(weight)
    return bitmap.decompress(weight) if isinstance(weight, Bitmap) else weight


def arrays(name: str, weight: Weight) -> dict[str, NDArray[Any]]:
    """The arrays of a weight by their names in the engine."""
    if isinstance(weight, Compressed):
        return {f"{name}.values": weight.values, f"{name}.indices": weight.indices}
    if isinstance(weight, Bitmap):
        return {f"{name}.values": weight.values, f"{name}.bitmap": weight.bits}
    return {name: weight}


def names(name: str, pattern: Pattern | None) -> tuple[str, ...]:
    """The names of the arrays that hold a weight of a pattern, in the order of `arrays`."""
    if pattern is None:
        return (name,)
    return (f"{name}.values", f"{name}.indices" if isinstance(pattern, GroupPattern) else f"{name}.bitmap")


def assemble(found: Arrays, name: str, pattern: Pattern | None, k: int) -> Weight:
    """The weight of `k` input channels whose arrays are among `found`; what `arrays` took apart.

    Nothing is checked: `dense` does that.
    """
    parts = [found[part] for part in names(name, pattern)]
    if isinstance(pattern, GroupPattern):
        return Compressed(parts[0], parts[1], pattern.kept, pattern.group, k)
    return parts[0] if pattern is None else Bitmap(parts[1], parts[0], k)
