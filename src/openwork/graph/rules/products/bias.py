"""A constant that is added to each output channel goes into what makes the sums."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import attributes, constant, dims, needed
from openwork.graph.operands import keeps_axes
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.followed import Follow, alone, channels, is_float, maker
from openwork.graph.rules.products.weights import constant_bias, layer_name
from openwork.graph.slots import rebuilt, slot


def _match(node: ir.Node) -> Follow | None:
    for index in (0, 1):
        step, other = maker(needed(node, index)), needed(node, 1 - index)
        if step is None:
            continue
        if constant(other) is not None or constant_bias(other, channels(step)) is not None:
            return Follow(node, step, other)
    return None


def _check(found: Follow) -> str | None:
    # A residual is added as a bias is: in which order is a rounding.
    ends = attributes(found.step)["activation"] != "none" or not is_float(found.step)
    if ends or slot(found.step, "bias") is not None:
        return "the product already has a bias or something after it"
    if constant_bias(found.other, channels(found.step)) is None:
        return "the constant that is added does not have one float32 number for each output channel"
    if not keeps_axes(found.step.outputs[0], len(dims(found.other) or ())):
        return "the constant that is added has more axes than the product"
    return alone(found)


def _replace(found: Follow) -> Replacement:
    bias = constant_bias(found.other, channels(found.step))
    name = found.step.name or ""
    if found.other is not None and name.endswith("MatMul"):
        name = layer_name(found.step, None, found.other)
    assert bias is not None
    value = add_initializer(home(found.node), f"{name}.bias", bias)
    made = rebuilt(found.step, {"bias": value}, name)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


BIAS = Rule("bias into product", frozenset({"Add"}), _match, _check, _replace)
