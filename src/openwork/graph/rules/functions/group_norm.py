"""Group normalization of images and sequences: as one ONNX operator, as an InstanceNormalization of groups
that stand as channels, or, where every channel is a group, as an InstanceNormalization alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.layout import IMAGE_AXES
from openwork.graph.model import Array, attributes, constant, dims, needed, only_consumer, producer
from openwork.graph.norms import EPSILON
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.sequences import over_images


@dataclass(frozen=True)
class _Norm:
    """What is normalized, into how many groups, by which numbers of each channel; `made` is the result."""

    node: ir.Node
    x: ir.Value
    groups: int
    gamma: Array | None
    beta: Array | None
    made: ir.Value


def _channels(x: ir.Value) -> int | None:
    """The fixed number of channels of an image or a sequence."""
    shape = dims(x)
    fits = shape is not None and len(shape) in (IMAGE_AXES - 1, IMAGE_AXES) and isinstance(shape[1], int)
    return int(shape[1]) if fits and shape is not None and isinstance(shape[1], int) else None


def _of_channels(numbers: Array | None, channels: int | None) -> Array | None:
    """One number for each channel, of one for each of their groups."""
    if numbers is None or channels is None or numbers.ndim != 1 or channels % max(1, numbers.size):
        return None
    return np.repeat(numbers, channels // max(1, numbers.size)).astype(np.float32)


def _match_operator(node: ir.Node) -> _Norm:
    x = needed(node, 0)
    channels = _channels(x)
    gamma, beta = (_of_channels(constant(needed(node, index)), channels) for index in (1, 2))
    return _Norm(node, x, int(attributes(node)["num_groups"]), gamma, beta, node.outputs[0])


def _grouped(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """What is reshaped to groups in front of the node, [B, C, ..] as [B, groups, all the rest], and what is
    reshaped back behind it."""
    before, after = producer(needed(node, 0), "Reshape"), only_consumer(node.outputs[0])
    if before is None or after is None or producer(after.outputs[0], "Reshape") is None:
        return None
    x, parted, made = needed(before, 0), dims(before.outputs[0]), after.outputs[0]
    shape = dims(x)
    if shape is None or parted is None or len(parted) != IMAGE_AXES - 1 or dims(made) != shape:
        return None
    channels, groups = shape[1], parted[1]
    if not isinstance(channels, int) or not isinstance(groups, int) or channels % groups:
        return None
    return (x, made) if parted[0] == shape[0] and None not in shape[:2] else None


def _by_channel(value: ir.Value, op_type: str, channels: int) -> tuple[ir.Value, Array | None]:
    """The value after a Mul (or Add) of constants of each channel, and these; else the value itself."""
    reader, rank = only_consumer(value), len(dims(value) or ())
    split = split_constant(producer(reader.outputs[0], op_type)) if reader is not None else None
    if reader is None or split is None or split[0] is not value:
        return value, None
    numbers = split[1]
    wide = numbers.reshape((1,) * (rank - numbers.ndim) + numbers.shape)
    if wide.size != channels or wide.shape[1] != channels:
        return value, None
    return reader.outputs[0], numbers.reshape(-1)


def _match_instances(node: ir.Node) -> _Norm:
    x = needed(node, 0)
    scale, bias = constant(needed(node, 1)), constant(needed(node, 2))
    found = _grouped(node)
    if found is None:
        channels = _channels(x)
        gamma, beta = _of_channels(scale, channels), _of_channels(bias, channels)
        return _Norm(node, x, channels or 1, gamma, beta, node.outputs[0])
    x, made = found
    channels = _channels(x)
    gamma, beta = _of_channels(scale, channels), _of_channels(bias, channels)
    groups = 1 if scale is None else scale.size
    if channels is None or gamma is None or beta is None:
        return _Norm(node, x, groups, gamma, beta, made)
    made, factor = _by_channel(made, "Mul", channels)
    gamma, beta = (gamma, beta) if factor is None else (gamma * factor, beta * factor)
    made, shift = _by_channel(made, "Add", channels)
    return _Norm(node, x, groups, gamma, beta if shift is None else beta + shift, made)


def _check(found: _Norm) -> str | None:
    channels = _channels(found.x)
    if found.x.dtype != ir.DataType.FLOAT or channels is None:
        return "its input is no float32 image or sequence with a known number of channels"
    if found.gamma is None or found.beta is None:
        return f"its scale and shift are not constants, one for each of the {channels} channels or the groups"
    if found.gamma.size != channels or found.beta.size != channels:
        return f"its scale and shift do not have one number for each of the {channels} channels"
    if not np.isfinite(np.stack([found.gamma, found.beta])).all():
        return "its scale or its shift is not finite"
    if channels % found.groups:
        return f"its {found.groups} groups do not share out the {channels} channels"
    return None


def _replace(found: _Norm) -> Replacement:
    graph, name = home(found.node), found.node.name or ""
    assert found.gamma is not None
    assert found.beta is not None
    inputs = {
        "x": found.x,
        "gamma": add_initializer(graph, f"{name}.gamma", found.gamma),
        "beta": add_initializer(graph, f"{name}.beta", found.beta),
    }
    epsilon = float(attributes(found.node).get("epsilon", EPSILON))
    values = {"groups": found.groups, "epsilon": epsilon, "activation": "none"}
    # What it makes has the shape of x, whether onnx knows it or not.
    nodes = over_images("GroupNorm", inputs, values, name, found.x)
    last = found.made.producer()
    return Replacement(nodes, [(found.made, nodes[-1].outputs[0])], before=last)


GROUP_NORM = Rule("group norm", frozenset({"GroupNormalization"}), _match_operator, _check, _replace)
INSTANCE_NORM = Rule(
    "norm of instances or groups",
    frozenset({"InstanceNormalization"}),
    _match_instances,
    _check,
    _replace,
)
