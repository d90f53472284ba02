"""Slice and Split along one axis of a fixed size, by steps of 1, and Gather of neighbours along any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import attributes, constant, dims, make, needed, operand
from openwork.graph.rewrite import Replacement, Rule, home


@dataclass(frozen=True)
class _Cut:
    """Parts of x along an axis, [begin, end), one for each output; or why they are none."""

    node: ir.Node
    axis: int
    parts: Sequence[tuple[int, int]]
    reason: str | None = None


def _numbers(node: ir.Node, index: int, name: str) -> list[int] | None:
    """The integers of an input, or before it was one of an attribute."""
    value = operand(node, index)
    if value is None:
        given = attributes(node).get(name)
        return None if given is None else list(given)
    array = constant(value)
    return None if array is None else array.reshape(-1).astype(np.int64).tolist()


def _match_slice(node: ir.Node) -> _Cut | None:
    shape = dims(needed(node, 0))
    starts, ends = _numbers(node, 1, "starts"), _numbers(node, 2, "ends")
    if shape is None or starts is None or ends is None:
        return _Cut(node, 0, (), "where it begins and ends is not constant")
    axes = _numbers(node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(node, 4, "steps") or [1] * len(starts)
    if len(axes) != 1:
        return _Cut(node, 0, (), f"it cuts {len(axes)} axes at once")
    axis = axes[0] % len(shape)
    size = shape[axis]
    if steps != [1] or not isinstance(size, int):
        return _Cut(node, axis, (), f"it takes steps of {steps[0]} along an axis of the size {size}")
    begin, end = (min(max(at + size if at < 0 else at, 0), size) for at in (starts[0], ends[0]))
    return _Cut(node, axis, [(begin, end)], "it leaves nothing" if begin >= end else None)


def _match_split(node: ir.Node) -> _Cut:
    shape, axis = dims(needed(node, 0)), int(attributes(node).get("axis", 0))
    if shape is None or not isinstance(shape[axis % len(shape)], int):
        return _Cut(node, 0, (), "the size of its axis is free")
    axis %= len(shape)
    sizes = [(dims(value) or (None,) * len(shape))[axis] for value in node.outputs]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes) or 0 in known:
        return _Cut(node, axis, (), f"its parts have the sizes {sizes}")
    ends = np.cumsum(known).tolist()
    return _Cut(node, axis, list(zip([0, *ends[:-1]], ends, strict=True)))


def _check(found: _Cut) -> str | None:
    if found.reason is None and needed(found.node, 0).dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "its input is neither float32 nor uint8"
    return found.reason


def _replace(found: _Cut) -> Replacement:
    node, nodes = found.node, []
    for number, (begin, end) in enumerate(found.parts):
        name = f"{node.name}.{number}" if len(found.parts) > 1 else node.name or ""
        values = {"axis": found.axis, "begin": begin, "end": end}
        nodes.append(make("Slice", [needed(node, 0)], values, name))
    read = zip(node.outputs, nodes, strict=True)
    return Replacement(nodes, [(old, made.outputs[0]) for old, made in read])


@dataclass(frozen=True)
class _Neighbours:
    """The elements that a Gather picks, [begin, end) along an axis; or why they are none."""

    node: ir.Node
    axis: int = 0
    begin: int = 0
    end: int = 0
    single: bool = False
    reason: str | None = None


def _match_gather(node: ir.Node) -> _Neighbours | None:
    x, indices = needed(node, 0), constant(needed(node, 1))
    shape = dims(x)
    if indices is None or shape is None or constant(x) is not None:
        return None
    axis = int(attributes(node).get("axis", 0)) % len(shape)
    size = shape[axis]
    picked = indices.reshape(-1).astype(np.int64)
    if isinstance(size, int):
        picked = np.where(picked < 0, picked + size, picked)
    neighbours = picked.size and picked[0] >= 0 and (np.diff(picked) == 1).all()
    if indices.ndim > 1 or not neighbours:
        return _Neighbours(node, reason="its indices are not neighbours in order, counted from the front")
    return _Neighbours(node, axis, int(picked[0]), int(picked[-1]) + 1, indices.ndim == 0)


def _check_gather(found: _Neighbours) -> str | None:
    x = needed(found.node, 0)
    if found.reason is None and x.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "its input is neither float32 nor uint8"
    size = (dims(x) or ())[found.axis] if found.reason is None else None
    if isinstance(size, int) and found.end > size:
        return f"it picks element {found.end - 1} of {size}"
    return found.reason


def _replace_gather(found: _Neighbours) -> Replacement:
    """One element leaves no axis: the cut, which has one of it, is squeezed."""
    node = found.node
    values = {"axis": found.axis, "begin": found.begin, "end": found.end}
    cut = make("Slice", [needed(node, 0)], values, node.name or "")
    if not found.single:
        return Replacement([cut], [(node.outputs[0], cut.outputs[0])])
    axes = add_initializer(home(node), f"{node.name}.axes", np.array([found.axis], np.int64))
    squeezed = ir.Value(shape=node.outputs[0].shape, type=node.outputs[0].type)
    squeeze = ir.Node("", "Squeeze", [cut.outputs[0], axes], outputs=[squeezed], name=f"{node.name}.squeeze")
    return Replacement([cut, squeeze], [(node.outputs[0], squeezed)])


GATHER = Rule("gather of neighbours", frozenset({"Gather"}), _match_gather, _check_gather, _replace_gather)
SLICE = Rule("slice", frozenset({"Slice"}), _match_slice, _check, _replace)
SPLIT = Rule("split", frozenset({"Split"}), _match_split, _check, _replace)
