"""What convolutions and norms do to channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from openwork.sparsity.permutation.relations import Use
from openwork.sparsity.permutation.rules import (
    Consumer,
    Known,
    Walk,
    _with_bias,
    argument,
    enter,
    place,
    rule,
    shape_of,
)
from openwork.sparsity.permutation.values import Source, Value, combined, positions


@rule("conv1d", "conv2d", "conv3d")
def convolution(walk: Walk, node: fx.Node) -> Known:
    return _convolution(walk, node, int(argument(node, 6, "groups", 1)), transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(walk: Walk, node: fx.Node) -> Known:
    return _convolution(walk, node, int(argument(node, 6, "groups", 1)), transposed=True)


@rule("convolution")
def any_convolution(walk: Walk, node: fx.Node) -> Known:
    return _convolution(
        walk, node, int(argument(node, 8, "groups", 1)), bool(argument(node, 6, "transposed", False))
    )


def _convolution(walk: Walk, node: fx.Node, groups: int, transposed: bool) -> Known:
    weight, bias = walk.source(argument(node, 1, "weight")), argument(node, 2, "bias")
    first = node.args[0]
    assert isinstance(first, fx.Node)
    value = walk.value(first)
    if weight is None or weight.rows is not None or weight.swapped:
        return walk.refuse(node, f"They meet a weight that is computed, in {place(node)}.")
    if groups == 1:
        return _dense(walk, node, value, weight, bias, transposed)
    if not transposed and weight.shape[1] == 1:
        return _depthwise(walk, node, value, weight, bias)
    if transposed:
        return walk.refuse(node, f"Groups of a transposed convolution are not followed, in {place(node)}.")
    return _grouped(walk, node, value, weight, bias, groups)


def _dense(walk: Walk, node: fx.Node, value: Value, weight: Source, bias: Any, transposed: bool) -> Known:
    out_axis = 1 if transposed else 0
    enter(walk, value, weight.axis(walk.relations, 1 - out_axis), _channel_axis(node), node)
    use = Use(weight.name, "axis", 1 - out_axis)
    walk.consumers.setdefault(weight.name, Consumer(use, out_axis, 1 - out_axis))
    return _with_bias(walk, node, weight.axis(walk.relations, out_axis), bias, _channel_axis(node))


def _channel_axis(node: fx.Node) -> int:
    """0 or 1: an input may have no batch axis."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return len(shape_of(node)) - len(shape_of(weight)) + 1


def _depthwise(walk: Walk, node: fx.Node, value: Value, weight: Source, bias: Any) -> Known:
    """Each channel goes its own way: outputs move with the inputs they come from."""
    axis, outputs = _channel_axis(node), weight.shape[0]
    result = _with_bias(walk, node, weight.axis(walk.relations, 0), bias, axis)
    assert result.atoms is not None
    if value.atoms is None or axis not in value.varying or outputs % value.atoms.shape[axis]:
        walk.relations.fix(result.atoms.flatten(), f"The channels before {place(node)} keep their order.")
        if value.atoms is not None:
            walk.relations.fix(value.atoms.flatten(), f"They reach {place(node)} as positions.")
        return result
    incoming = value.atoms.repeat_interleave(outputs // value.atoms.shape[axis], dim=axis)
    shape = [1] * len(value.shape)
    shape[axis] = outputs
    return combined(walk.relations, [Value(incoming, tuple(shape)), result], shape_of(node), place(node))


def _grouped(walk: Walk, node: fx.Node, value: Value, weight: Source, bias: Any, groups: int) -> Known:
    """Channels move within the group that they belong to, on both sides."""
    axis, relations = _channel_axis(node), walk.relations
    use = Use(weight.name, "grouped", groups)
    incoming = relations.atoms(use, (groups, weight.shape[1])).flatten()
    relations.tell_apart(incoming, _blocks(len(incoming), groups))
    enter(walk, value, incoming, axis, node)
    walk.consumers.setdefault(weight.name, Consumer(use, 0, 1, groups))
    outgoing = weight.axis(relations, 0)
    relations.tell_apart(outgoing, _blocks(len(outgoing), groups))
    return _with_bias(walk, node, outgoing, bias, axis)


def _blocks(channels: int, groups: int) -> Tensor:
    return torch.arange(channels) // (channels // groups)


@rule("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def per_channel_norm(walk: Walk, node: fx.Node) -> Known:
    return _scaled(walk, node, [each for each in node.args[1:5] if isinstance(each, fx.Node)])


@rule("prelu")
def prelu(walk: Walk, node: fx.Node) -> Known:
    return _scaled(walk, node, [each for each in node.args[1:2] if isinstance(each, fx.Node)])


@rule("group_norm")
def group_norm(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    groups = int(argument(node, 1, "num_groups"))
    if value.atoms is not None and 1 in value.varying and groups < value.shape[1]:
        blocks = _blocks(value.shape[1], groups).view([-1 if a == 1 else 1 for a in range(len(value.shape))])
        walk.relations.tell_apart(value.atoms, blocks)
        _tell_others_apart(walk, value, {1})
    return _scaled(walk, node, [each for each in node.args[2:4] if isinstance(each, fx.Node)])


def _scaled(walk: Walk, node: fx.Node, factors: list[fx.Node]) -> Known:
    """An operation for each place of axis 1 by stored vectors `factors`."""
    shape = shape_of(node)
    operands = [walk.value(node.args[0])]  # type: ignore[arg-type]
    for factor in factors:
        stored = walk.value(factor)
        wide = tuple(stored.shape[0] if a == 1 else 1 for a in range(len(shape)))
        operands.append(
            Value(
                None
                if stored.atoms is None
                else stored.atoms.view([stored.atoms.shape[0] if a == 1 else 1 for a in range(len(shape))]),
                wide,
            )
        )
    return combined(walk.relations, operands, shape, place(node))


@rule("layer_norm", "rms_norm")
def layer_norm(walk: Walk, node: fx.Node) -> Known:
    value = walk.value(node.args[0])  # type: ignore[arg-type]
    normalized = len(argument(node, 1, "normalized_shape"))
    rank = len(value.shape)
    _tell_others_apart(walk, value, set(range(rank - normalized, rank)))
    operands = [value, *(walk.value(each) for each in node.args[2:4] if isinstance(each, fx.Node))]
    return combined(walk.relations, operands, shape_of(node), place(node))


def _tell_others_apart(walk: Walk, value: Value, axes: set[int]) -> None:
    if value.atoms is not None and axes & set(value.varying):
        others = [axis for axis in value.varying if axis not in axes]
        walk.relations.tell_apart(value.atoms, positions(value.atoms, others))
