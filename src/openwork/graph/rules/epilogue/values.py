"""A multiplier of each channel behind attention goes into the product that makes the values.

Attention mixes the values channel by channel, so a factor on a channel of its result is a factor on that
channel of the values: (sum of p[j] v[j, d]) m[d] = sum of p[j] (v[j, d] m[d]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import (
    Array,
    add_initializer,
    attributes,
    constant,
    dims,
    make,
    native_producer,
    needed,
    only_consumer,
    operand,
)
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.epilogue.followers import LINEARS, bias_index, is_plain, rebuilt
from openwork.graph.rules.functions.layer_norm import split_constant

VALUES = 2
"""The place of the values among the inputs of an Attention that is not packed."""


@dataclass(frozen=True)
class _Scaled:
    node: ir.Node
    attention: ir.Node
    linear: ir.Node | None
    multiplier: Array


def _match(node: ir.Node) -> _Scaled | None:
    split = split_constant(node)
    attention = native_producer(split[0], "Attention") if split is not None else None
    if split is None or attention is None:
        return None
    packed = attributes(attention)["packed"]
    linear = None if packed else native_producer(needed(attention, VALUES), *LINEARS)
    return _Scaled(node, attention, linear, split[1])


def _check(found: _Scaled) -> str | None:
    width = (dims(found.attention.outputs[0]) or (None,))[-1]
    multiplier = found.multiplier
    if multiplier.dtype != np.float32 or multiplier.size != width or multiplier.shape[-1] != width:
        return "the constant does not have one float32 number for each channel"
    if not np.all(np.isfinite(multiplier) & (multiplier > 0)):
        return "the constant is not positive and finite"
    if only_consumer(found.attention.outputs[0]) is None:
        return "the result of attention is read by other nodes too"
    if found.linear is None or not is_plain(found.linear):
        return "its values are not made by a product of their own without anything after it"
    if only_consumer(found.linear.outputs[0]) is not found.attention:
        return "its values are read by other nodes too"
    return None


def _scaled_inputs(found: _Scaled, linear: ir.Node) -> dict[int, ir.Value | None]:
    """The product's tensors after the multiplier: scales (or float weights) and bias."""
    graph, name, by = home(found.node), linear.name or "", found.multiplier.reshape(-1)
    quantized = linear.op_type == "Linear"
    index, slot = (3, "weight_scale") if quantized else (2, "weight")
    array, bias = constant(operand(linear, index)), constant(operand(linear, bias_index(linear)))
    assert array is not None
    changed = {index: add_initializer(graph, f"{name}.{slot}", array * (by if quantized else by[:, None]))}
    if bias is not None:
        changed[bias_index(linear)] = add_initializer(graph, f"{name}.bias", bias * by)
    return dict(changed)


def _replace(found: _Scaled) -> Replacement:
    linear, attention = found.linear, found.attention
    assert linear is not None
    product = rebuilt(linear, linear.name or "", _scaled_inputs(found, linear))
    inputs = [
        product.outputs[0] if i == VALUES else operand(attention, i) for i in range(len(attention.inputs))
    ]
    made = make("Attention", inputs, attributes(attention), attention.name or "")
    return Replacement([product, made], [(found.node.outputs[0], made.outputs[0])])


MULTIPLIED_VALUES = Rule("multiplier into values", frozenset({"Mul"}), _match, _check, _replace)
