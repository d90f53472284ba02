"""The ways in which an engine stores a weight s8 or f32: dense, by an N:M pattern, or by a bitmap.

Each is a few arrays; an engine names them by the weight's name and a suffix (docs/program.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from openwork.patterns import bitmap, compressed
from openwork.patterns.bitmap import Bitmap
from openwork.patterns.compressed import Compressed
from openwork.patterns.pattern import GroupPattern, Pattern

Weight = NDArray[Any] | Compressed | Bitmap
Arrays = Mapping[str, NDArray[Any]]


def is_grouped(pattern: Pattern) -> TypeGuard[GroupPattern]:
    """Whether a pattern's weights are stored by groups: an N:M whose positions take no more than a bitmap.

    N values of ceil(log2 M) bits against one bit for each of M: 2:4 and 4:16 are equal and stored by groups,
    4:64 is smaller so; 4:8 and 32:64 are smaller as a bitmap, and groups of more than 256 always are.
    """
    if not isinstance(pattern, GroupPattern) or pattern.group > compressed.LARGEST_GROUP:
        return False
    return pattern.kept * compressed.field_bits(pattern.group) <= pattern.group


def store(weight: NDArray[Any], pattern: Pattern | None) -> Weight:
    """The smallest form that holds a weight s8 or f32 [n, k] of a pattern; dense where it has none.

    Raises ValueError where the weight breaks an N:M pattern that is stored by groups.
    """
    if pattern is None:
        return np.ascontiguousarray(weight)
    if is_grouped(pattern):
        return compressed.compress(weight, pattern.kept, pattern.group)
    return bitmap.compress(weight)


def dense(weight: Weight) -> NDArray[Any]:
    """The weight s8 or f32 [n, k] itself; raises ValueError unless its form is the canonical one."""
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
    return (f"{name}.values", f"{name}.indices" if is_grouped(pattern) else f"{name}.bitmap")


def assemble(found: Arrays, name: str, pattern: Pattern | None, k: int) -> Weight:
    """The weight of `k` input channels whose arrays are among `found`; what `arrays` took apart.

    Nothing is checked: `dense` does that.
    """
    parts = [found[part] for part in names(name, pattern)]
    if pattern is None:
        return parts[0]
    if is_grouped(pattern):
        return Compressed(parts[0], parts[1], pattern.kept, pattern.group, k)
    return Bitmap(parts[1], parts[0], k)
