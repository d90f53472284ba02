"""Shuffles of channels, as ShuffleNet has them: the groups of an image's channels, and the channels of each
group, change places.

With channels last a pixel's channels are a small matrix [groups, channels of a group], which is turned; that
is what a move of channels does with an image for each pixel, of `groups` channels and one row.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.layout import FIRST, IMAGE_AXES, LAST, PERMUTATION, moved
from openwork.graph.model import attributes, dims, know_dims, lone_producer, needed
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.views import reshaped, target_shape


@dataclass(frozen=True)
class _Shuffle:
    """Reshape, Transpose, Reshape of an image of so many groups, its channels second or last."""

    node: ir.Node
    x: ir.Value
    groups: int
    last: bool

    @property
    def channels(self) -> int:
        size = (dims(self.x) or ())[-1 if self.last else 1]
        assert isinstance(size, int)
        return size

    @property
    def shape(self) -> list[int | str | None]:
        """Of the image with its channels last."""
        given = dims(self.x) or ()
        return list(given) if self.last else [given[axis] for axis in PERMUTATION[LAST]]


def _match(node: ir.Node) -> _Shuffle | None:
    turn = lone_producer(needed(node, 0), "Transpose")
    split = None if turn is None else lone_producer(needed(turn, 0), "Reshape")
    if turn is None or split is None:
        return None
    x, parts = needed(split, 0), dims(split.outputs[0])
    shape, perm = dims(x), list(attributes(turn).get("perm", ()))
    if shape is None or parts is None or len(shape) != IMAGE_AXES or dims(node.outputs[0]) != shape:
        return None
    for last in (False, True):
        first = len(parts) - 2 if last else 1
        turned = list(range(len(parts)))
        turned[first : first + 2] = [first + 1, first]
        groups, size, channels = *parts[first : first + 2], shape[-1 if last else 1]
        if perm != turned or not isinstance(groups, int) or not isinstance(size, int):
            continue
        if groups * size == channels and _same_around(shape, parts, last):
            return _Shuffle(node, x, groups, last)
    return None


def _same_around(
    shape: tuple[int | str | None, ...], parts: tuple[int | str | None, ...], last: bool
) -> bool:
    """Whether the batch stands alone, and nothing but the channels is split; pixels may stand in one row."""
    if last:
        return parts[:-2] == shape[:-1]
    return parts[0] == shape[0] and (parts[3:] == shape[2:] or len(parts) == IMAGE_AXES)


def _check(found: _Shuffle) -> str | None:
    if found.x.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "the image whose channels it shuffles is neither float32 nor uint8"
    size = found.channels // found.groups
    target = target_shape((None, 1, size, found.groups), tuple(found.shape))
    return f"it shuffles channels, and {target}" if isinstance(target, str) else None


def _replace(found: _Shuffle) -> Replacement:
    name, old, size = found.node.name or "", found.node.outputs[0], found.channels // found.groups
    nodes, x = list[ir.Node](), found.x
    if not found.last:
        nodes.append(moved(LAST, x, f"{name}.x"))
        x = nodes[-1].outputs[0]
    nodes.append(reshaped(x, (f"{name}.pixels", found.groups, 1, size), f"{name}.groups"))
    nodes.append(moved(LAST, nodes[-1].outputs[0], name))
    nodes.append(reshaped(nodes[-1].outputs[0], tuple(found.shape), f"{name}.shuffled"))
    know_dims(nodes[-1].outputs[0], found.shape)
    if not found.last:
        nodes.append(moved(FIRST, nodes[-1].outputs[0], f"{name}.y"))
    return Replacement(nodes, [(old, nodes[-1].outputs[0])])


SHUFFLE = Rule("shuffle of channels", frozenset({"Reshape"}), _match, _check, _replace)
