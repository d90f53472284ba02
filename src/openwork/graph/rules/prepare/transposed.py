"""ConvTranspose without strides as the convolution that it is: its kernels turned around, the channels of its
weight exchanged, its pads those that leave as many pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import Array, attributes, constant, needed
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.weights import dequantized

_INPUTS = 0
"""The axis of a weight [inputs, outputs of a group, kernel..] whose scales belong to input channels."""


@dataclass(frozen=True)
class _Transposed:
    """A ConvTranspose with its weight [inputs, outputs of a group, kernel..] and, where that is dequantized,
    the node that does it; or why it is no convolution."""

    node: ir.Node
    weight: Array
    dequantize: ir.Node | None
    pads: Sequence[int] | str

    @property
    def groups(self) -> int:
        return int(attributes(self.node).get("group", 1))


def _match(node: ir.Node) -> _Transposed:
    second = needed(node, 1)
    found = dequantized(second)
    dequantize = found[0] if found is not None and not found[1] else None
    weight = constant(second if dequantize is None else needed(dequantize, 0))
    if weight is None:
        return _Transposed(node, np.zeros(0), None, "its weight is not constant")
    return _Transposed(node, weight, dequantize, _pads(attributes(node), weight.shape[2:]))


def _pads(given: dict[str, Any], kernel: Sequence[int]) -> list[int] | str:
    """The pads of the convolution, all begins, then all ends, or why it is none."""
    count = len(kernel)
    strides = list(given.get("strides") or [1] * count)
    if any(stride != 1 for stride in strides):
        return (
            f"it spreads its input by strides {strides}; one of strides 1 alone is a convolution, which a "
            "native step runs"
        )
    if given.get("output_shape"):
        return "its output's shape is stated, and its pads depend on the size of its input"
    more = list(given.get("output_padding") or [])
    if any(more):
        return f"it adds output_padding {more}, which ONNX Runtime takes with strides alone"
    dilations = list(given.get("dilations") or [1] * count)
    reach = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
    cut = _own_pads(given, reach)
    pads = [size - pad for size, pad in zip([*reach, *reach], cut, strict=True)]
    if any(pad < 0 for pad in pads):
        return f"it cuts its result by pads {cut} larger than its kernel reaches"
    return pads


def _own_pads(given: dict[str, Any], reach: Sequence[int]) -> list[int]:
    """What it cuts from its result, all begins, then all ends; reach : by how many pixels that is larger than
    its input without pads, for each axis."""
    automatic, count = given.get("auto_pad", "NOTSET"), len(reach)
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        small, large = [size // 2 for size in reach], [size - size // 2 for size in reach]
        return [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]
    return list(given.get("pads") or [0] * 2 * count) if automatic in ("NOTSET", "") else [0] * 2 * count


def _check(found: _Transposed) -> str | None:
    if isinstance(found.pads, str):
        return found.pads
    if found.weight.shape[0] % found.groups:
        return f"its {found.weight.shape[0]} input channels do not fit its {found.groups} groups"
    for value in found.dequantize.inputs[1:3] if found.dequantize is not None else ():
        numbers = np.zeros(1) if value is None else constant(value)
        if numbers is None or numbers.ndim > 1:
            return "the scales and zero points of its weight are not constants for each channel"
        if numbers.size > 1 and _axis(found) == _INPUTS:
            return "its weight has a scale for each input channel, which no sum of integers takes"
    return None


def _axis(found: _Transposed) -> int:
    assert found.dequantize is not None
    return int(attributes(found.dequantize).get("axis", 1)) % found.weight.ndim


def _turned(found: _Transposed) -> Array:
    """The weight [outputs, inputs of a group, kernel..], its kernels from their ends."""
    inputs, outputs, *kernel = found.weight.shape
    grouped = found.weight.reshape(found.groups, inputs // found.groups, outputs, *kernel)
    exchanged = np.swapaxes(grouped, 1, 2).reshape(found.groups * outputs, inputs // found.groups, *kernel)
    return np.ascontiguousarray(np.flip(exchanged, tuple(range(2, exchanged.ndim))))


def _replace(found: _Transposed) -> Replacement:
    node, graph, name = found.node, home(found.node), found.node.name or ""
    nodes: list[ir.Node] = []
    assert not isinstance(found.pads, str)
    weight = add_initializer(graph, f"{needed(node, 1).name}.turned", _turned(found))
    if found.dequantize is not None:
        nodes.append(_dequantize(found, weight))
        weight = nodes[-1].outputs[0]
    given = attributes(node)
    values = [ir.AttrInt64s("pads", list(found.pads)), ir.AttrInt64("group", found.groups)]
    if given.get("dilations"):
        values.append(ir.AttrInt64s("dilations", given["dilations"]))
    inputs = [needed(node, 0), weight, *node.inputs[2:]]
    made = ir.Node("", "Conv", inputs, values, name=name)
    old = node.outputs[0]
    made.outputs[0].shape, made.outputs[0].type = old.shape, old.type
    return Replacement([*nodes, made], [(old, made.outputs[0])])


def _dequantize(found: _Transposed, weight: ir.Value) -> ir.Node:
    """Of the turned weight: numbers for each output of a group are those of every group."""
    assert found.dequantize is not None
    numbers: list[ir.Value | None] = []
    for value in found.dequantize.inputs[1:3]:
        array = constant(value)
        if value is not None and array is not None and array.size > 1:
            value = add_initializer(home(found.node), f"{value.name}.turned", np.tile(array, found.groups))
        numbers.append(value)
    made = ir.Node("", "DequantizeLinear", [weight, *numbers], [ir.AttrInt64("axis", 0)])
    made.outputs[0].shape, made.outputs[0].type = weight.shape, ir.TensorType(ir.DataType.FLOAT)
    return made


TRANSPOSED = Rule("transposed convolution", frozenset({"ConvTranspose"}), _match, _check, _replace)
