"""What convolutions do to channels."""

from __future__ import annotations

from typing import Any

from torch import fx

from openwork.sparsity.permutation.relations import Use
from openwork.sparsity.permutation.rules.channels import block_of_channels, enter, with_bias
from openwork.sparsity.permutation.values import Source, Value, combined
from openwork.sparsity.permutation.walk import Consumer, Known, Rule, Walk, argument, place, rule, shape_of

RULES: dict[str, Rule] = {}


@rule(RULES, "conv1d", "conv2d", "conv3d")
def convolution(walk: Walk, node: fx.Node) -> Known:
    return _convolution(walk, node, int(argument(node, 6, "groups", 1)), transposed=False)


@rule(RULES, "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(walk: Walk, node: fx.Node) -> Known:
    return _convolution(walk, node, int(argument(node, 6, "groups", 1)), transposed=True)


@rule(RULES, "convolution")
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
    return with_bias(walk, node, weight.axis(walk.relations, out_axis), bias, _channel_axis(node))


def _channel_axis(node: fx.Node) -> int:
    """0 or 1: an input may have no batch axis."""
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    return len(shape_of(node)) - len(shape_of(weight)) + 1


def _depthwise(walk: Walk, node: fx.Node, value: Value, weight: Source, bias: Any) -> Known:
    """Each channel goes its own way: outputs move with the inputs they come from."""
    axis, outputs = _channel_axis(node), weight.shape[0]
    result = with_bias(walk, node, weight.axis(walk.relations, 0), bias, axis)
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
    relations.tell_apart(incoming, block_of_channels(len(incoming), groups))
    enter(walk, value, incoming, axis, node)
    walk.consumers.setdefault(weight.name, Consumer(use, 0, 1, groups))
    outgoing = weight.axis(relations, 0)
    relations.tell_apart(outgoing, block_of_channels(len(outgoing), groups))
    return with_bias(walk, node, outgoing, bias, axis)
