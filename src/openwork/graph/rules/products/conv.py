"""Convolutions with a constant weight: Q/DQ around Conv into Conv of integers, others of floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.layout import IMAGE_AXES
from openwork.graph.model import Array, attributes, constant, dims, native_producer, needed, operand
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.sums import summed
from openwork.graph.rules.products.weights import (
    Weight,
    channel_bias,
    dequantized,
    layer_name,
    overflows,
    read_kernel,
)
from openwork.graph.rules.products.windows import read_window
from openwork.graph.sequences import over_images
from openwork.graph.stated_patterns import carry_pattern

ANCHORS = frozenset({"Conv"})


@dataclass(frozen=True)
class _Conv:
    """A Conv and what is read of it, each part or the reason why it is not run: its window with its groups,
    and its weight [n, kernel height, kernel width, channels of a group]; source : the value that held it."""

    node: ir.Node
    window: dict[str, Any] | str
    weight: Weight | Array | str
    source: ir.Value
    dequantize: ir.Node | None = None


def _window(node: ir.Node, weight: tuple[int, ...]) -> dict[str, Any] | str:
    shape = dims(needed(node, 0))
    if shape is None or len(shape) != len(weight):
        return "its first operand does not have the axes of its weight"
    if not isinstance(shape[1], int):
        return "the number of its input channels is free"
    found = read_window(node, weight[2:])
    if isinstance(found, str):
        return found
    groups = int(attributes(node).get("group", 1))
    if shape[1] != groups * weight[1] or weight[0] % groups:
        return f"its weight of shape {list(weight)} in {groups} groups does not fit its {shape[1]} channels"
    return {**found, "groups": groups}


def channels_last(weight: Array) -> Array:
    """A weight [n, channels, kernel..] as [n, kernel height, kernel width, channels]."""
    flat = weight[:, :, None] if weight.ndim == IMAGE_AXES - 1 else weight
    return np.ascontiguousarray(flat.transpose(0, 2, 3, 1))


def _match(node: ir.Node) -> _Conv | None:
    dequantize = native_producer(needed(node, 0), "Dequantize")
    found = dequantized(needed(node, 1))
    if dequantize is None or found is None:
        return None
    integers = constant(needed(found[0], 0))
    shape = () if integers is None else integers.shape
    source = needed(found[0], 0)
    return _Conv(node, _window(node, shape), read_kernel(found[0]), source, dequantize)


def _check(found: _Conv) -> str | None:
    for part in (found.window, found.weight):
        if isinstance(part, str):
            return part
    if isinstance(found.weight, Weight):
        assert found.dequantize is not None
        if overflows(float(attributes(found.dequantize)["x_scale"]), found.weight):
            return "the product of the scales of its operands is not finite"
    third = operand(found.node, 2)
    (outputs, *_) = dims(found.source) or (0,)
    if third is not None and channel_bias(third, outputs if isinstance(outputs, int) else 0) is None:
        return "its bias is not constant with one number per output channel"
    return None


def _replace(found: _Conv) -> Replacement:
    node, graph, weight, window = found.node, home(found.node), found.weight, found.window
    assert not isinstance(window, str)
    assert not isinstance(weight, str)
    name = layer_name(node, found.source, operand(node, 2))
    values = {**window, "activation": "none"}
    shared: dict[str, ir.Value] = {"x": needed(node, 0)}
    parts: Sequence[Array] = [weight] if not isinstance(weight, Weight) else weight.parts
    if isinstance(weight, Weight) and found.dequantize is not None:
        shared["x"] = needed(found.dequantize, 0)
        shared["weight_scale"] = add_initializer(graph, f"{name}.weight_scale", weight.scale)
        values |= attributes(found.dequantize)
    bias = channel_bias(operand(node, 2), len(parts[0]))

    def product(part: Array, layer: str, first: bool) -> list[ir.Node]:
        held = carry_pattern([found.source], add_initializer(graph, f"{layer}.weight", part))
        inputs = {**shared, "weight": held}
        if bias is not None and first:
            inputs["bias"] = add_initializer(graph, f"{name}.bias", bias)
        return over_images("Conv", inputs, values, layer, node.outputs[0])

    nodes = summed(parts, product, name)
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


CONV = Rule("convolution", ANCHORS, _match, _check, _replace, lasting=True)


def _match_float(node: ir.Node) -> _Conv | None:
    weight = constant(needed(node, 1))
    if weight is None:
        return None
    return _Conv(node, _window(node, weight.shape), _float_weight(node, weight), needed(node, 1))


def _float_weight(node: ir.Node, weight: Array) -> Array | str:
    if weight.dtype != np.float32 or needed(node, 0).dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, its input {needed(node, 0).dtype}; both must be float32"
    if not np.all(np.isfinite(weight)):
        return "its weight holds numbers that are not finite"
    return channels_last(weight) if weight.ndim in (IMAGE_AXES - 1, IMAGE_AXES) else weight


CONV_FLOAT = Rule("convolution in float", ANCHORS, _match_float, _check, _replace)
