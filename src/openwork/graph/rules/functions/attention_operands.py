"""Queries, keys and values of an attention: where they come from, and whether they are split into heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, Dim, ModelError, attributes, dims, needed, only_consumer, producer
from openwork.graph.probe import cone, samples, sized
from openwork.graph.scaling import scaling_of

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten")
REPEATS = ("Expand", "Tile")
"""What gives each of several heads of queries the keys that they share."""


@dataclass(frozen=True)
class Operand:
    """One of q, k, v.

    source: the value [B, L, H] that it comes from; of keys that are a past alone [B, G, P, D]. scale: the
    factor on the way. used: what is read. past, whole: the cache [B, G, P, D] in front of new heads, and both
    together, [B, G, T, D]; None without one. scaled_before: whether something is scaled before the cache.
    """

    source: ir.Value
    scale: float
    used: ir.Value
    past: ir.Value | None = None
    whole: ir.Value | None = None
    fresh: ir.Value | None = None
    scaled_before: bool = False

    @property
    def cached(self) -> ir.Value | None:
        """What holds the past: that of a cache, or the source where the past is all there is."""
        return self.source if len(dims(self.source) or ()) == 4 else self.past


def read_operand(used: ir.Value) -> Operand:
    """Upwards through moved axes, scales and a cache to the first value that is none of them."""
    value, scale = used, 1.0
    cache: tuple[ir.Value, ir.Value, ir.Value] | None = None
    scale_of_cache = 1.0
    while True:
        node = value.producer()
        if producer(value, *MOVES, *REPEATS) is not None and node is not None:
            value = needed(node, 0)
        elif node is not None and producer(value, "Mul", "Div") and (split := scaling_of(node)) is not None:
            value, scale = split[0], scale * split[1]
        elif cache is None and (parts := _cache(value)) is not None:
            cache, scale_of_cache = (*parts, value), scale
            value = parts[1]
        else:
            break
    if cache is None:
        return Operand(value, scale, used)
    past, fresh, whole = cache
    return Operand(value, scale, used, past, whole, fresh, scale != scale_of_cache)


def _cache(value: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The past and the new heads of a Concat of the two along the keys, [B, G, P + L, D]."""
    node, shape = producer(value, "Concat"), dims(value)
    if node is None or shape is None or len(shape) != 4 or len(node.inputs) != 2:
        return None
    if attributes(node).get("axis", 0) % 4 != 2:
        return None
    return needed(node, 0), needed(node, 1)


def read_result(value: ir.Value) -> ir.Value:
    """Downwards through moved axes to the last value that only moves."""
    while (reader := only_consumer(value)) is not None and producer(reader.outputs[0], *MOVES) is not None:
        if reader.inputs[0] is not value:
            break
        value = reader.outputs[0]
        shape = dims(value)
        if shape is not None and len(shape) in (2, 3):
            break
    return value


def split_heads(x: Array, heads: int) -> Array:
    """[B, L, H] as [B, heads, L, D]."""
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(0, 2, 1, 3)


def join_heads(x: Array, heads: int) -> Array:
    """[B, heads, L, D] as [B, L, H]."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def join_rows(x: Array, heads: int) -> Array:
    """[B, heads, L, D] as [B * L, H]."""
    return join_heads(x, heads).reshape(-1, heads * x.shape[3])


def moves_as(
    source: ir.Value, used: ir.Value, scale: float, heads: int, expected: Callable[[Array, int], Array]
) -> bool:
    """Whether the nodes from source to used move the axes as `expected` does, and scale by `scale`."""
    found = cone(used, frozenset({source}))
    if found is None or dims(source) is None or found.sources != {source}:
        return False
    try:
        for probe in samples(found):
            actual_shape = sized(source, probe.sizes)
            x = np.arange(1, np.prod(actual_shape) + 1, dtype=np.float32).reshape(actual_shape)
            y, wanted = found.evaluate(probe.sizes, {source: x}), expected(x, heads) * np.float32(scale)
            # The numbers 1, 2, .. differ by more than 1 / count relatively; two roundings stay far below
            # that.
            if y.shape != wanted.shape or not np.allclose(y, wanted, rtol=0.25 / x.size, atol=0):
                return False
    except (ModelError, KeyError):
        return False
    return True


def groups_of(operand: Operand, heads: int, size: int) -> int | None:
    """The heads of keys or values, as few as their width or their cache says; None where not known."""
    if operand.cached is not None:
        count: Dim = (dims(operand.cached) or (None, None))[1]
        return count if isinstance(count, int) and heads % count == 0 else None
    width = (dims(operand.source) or (None,))[-1]
    if not isinstance(width, int) or width % size or heads % (width // size):
        return None
    return width // size


def splits(operand: Operand, groups: int, heads: int, turned: bool) -> bool:
    """Whether keys or values are split into heads, put behind their past, and turned for the product."""

    def spread(x: Array, _: int) -> Array:
        """[B, G, T, D], each head for as many as share it."""
        repeated = np.repeat(x, heads // groups, axis=1)
        return repeated.swapaxes(2, 3) if turned else repeated

    def split(x: Array, _: int) -> Array:
        return spread(split_heads(x, groups), groups)

    if operand.whole is not None and operand.fresh is not None:
        fresh = moves_as(operand.source, operand.fresh, 1.0, groups, split_heads)
        return fresh and moves_as(operand.whole, operand.used, operand.scale, groups, spread)
    expected = spread if operand.cached is not None else split
    return moves_as(operand.source, operand.used, operand.scale, groups, expected)


def way_from(source: ir.Value, used: ir.Value) -> list[ir.Node]:
    """The nodes that move what is used from a value that it comes from."""
    way: list[ir.Node] = []
    while used is not source and (node := used.producer()) is not None and node.inputs:
        way.append(node)
        used = needed(node, 0)
    return way


def split_value(operand: Operand, groups: int) -> ir.Value | None:
    """The new heads [B, G, L, D] on the way from the source, where more reads them than this attention."""
    value: ir.Value | None = operand.used
    while value is not None and value is not operand.source:
        node = value.producer()
        shape = dims(value)
        read_elsewhere = value.is_graph_output() or len(value.uses()) > 1
        heads = read_elsewhere and len(shape or ()) == 4
        if heads and moves_as(operand.source, value, 1.0, groups, split_heads):
            return value
        value = None if node is None else needed(node, 0)
    return None
