"""Sums and products with a constant, or with one number for each channel of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.layout import FIRST, IMAGE_AXES, LAST, moved
from openwork.graph.model import Array, constant, dims, make, needed
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.functions.subtract import negated

OPERATOR = {"Add": "Add", "Sub": "Add", "Mul": "Multiply", "Div": "Multiply"}


@dataclass(frozen=True)
class _WithConstant:
    node: ir.Node
    x: ir.Value
    constant: Array
    first: bool
    """Whether the value stands before the constant."""


def _match_constant(node: ir.Node) -> _WithConstant | None:
    split = split_constant(node)
    shape = None if split is None else dims(split[0])
    if split is None or shape is None or split[0].dtype != ir.DataType.FLOAT:
        return None
    x, array = split
    by_last = array.size == array.shape[-1] if array.ndim else False
    if array.dtype != np.float32 or not (array.size == 1 or (by_last and array.size == shape[-1])):
        return None
    return _WithConstant(node, x, array.reshape(-1), first=x is needed(node, 0))


def _check_constant(found: _WithConstant) -> str | None:
    if found.node.op_type == "Div" and not found.first:
        return "it divides a constant by computed values; native steps divide by constants alone"
    with np.errstate(all="ignore"):
        numbers = _number(found)
    return None if np.isfinite(numbers).all() else "its constant holds numbers that are not finite"


def _number(found: _WithConstant) -> Array:
    if found.node.op_type == "Sub":
        return -found.constant if found.first else found.constant
    return (1 / found.constant).astype(np.float32) if found.node.op_type == "Div" else found.constant


def _replace_constant(found: _WithConstant) -> Replacement:
    node, name, nodes, x = found.node, found.node.name or "", list[ir.Node](), found.x
    if node.op_type == "Sub" and not found.first:
        nodes.append(negated(node, x, f"{name}.x"))
        x = nodes[-1].outputs[0]
    value = add_initializer(home(node), f"{name}.constant", _number(found))
    nodes.append(make(OPERATOR[node.op_type], {"a": x, "constant": value}, {}, name))
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


WITH_CONSTANT = Rule(
    "arithmetic with a constant", frozenset(OPERATOR), _match_constant, _check_constant, _replace_constant
)


@dataclass(frozen=True)
class _ByChannel:
    node: ir.Node
    image: ir.Value
    pixel: ir.Value


def _match_channels(node: ir.Node) -> _ByChannel | None:
    """An image [B, C, H, W] and one pixel [B, C, 1, 1] of each."""
    first, second = needed(node, 0), needed(node, 1)
    for image, pixel in ((first, second), (second, first)):
        shape, other = dims(image), dims(pixel)
        if shape is None or other is None or len(shape) != IMAGE_AXES or len(other) != IMAGE_AXES:
            continue
        if other[2:] == (1, 1) and shape[:2] == other[:2] and shape[2:] != (1, 1) and constant(pixel) is None:
            return _ByChannel(node, image, pixel)
    return None


def _check_channels(found: _ByChannel) -> str | None:
    if found.image.dtype == found.pixel.dtype == ir.DataType.FLOAT:
        return None
    return "its operands are not float32"


def _replace_channels(found: _ByChannel) -> Replacement:
    name = found.node.name or ""
    nodes, read = list[ir.Node](), list[ir.Value]()
    for value, slot in ((found.image, "a"), (found.pixel, "b")):
        nodes.append(moved(LAST, value, f"{name}.{slot}"))
        if found.node.op_type == "Sub" and value is needed(found.node, 1):
            nodes.append(negated(found.node, nodes[-1].outputs[0], f"{name}.{slot}.minus"))
        read.append(nodes[-1].outputs[0])
    made = make(OPERATOR[found.node.op_type], {"a": read[0], "b": read[1]}, {}, name)
    back = moved(FIRST, made.outputs[0], f"{name}.y")
    return Replacement([*nodes, made, back], [(found.node.outputs[0], back.outputs[0])])


BY_CHANNEL = Rule(
    "arithmetic with a number for each channel",
    frozenset({"Add", "Sub", "Mul"}),
    _match_channels,
    _check_channels,
    _replace_channels,
)
