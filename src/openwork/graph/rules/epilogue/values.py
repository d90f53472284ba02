"""A multiplier of each channel behind attention goes into the product that makes the values.

Attention mixes the values channel by channel, so a factor on a channel of its result is a factor on that
channel of the values: (sum of p[j] v[j, d]) m[d] = sum of p[j] (v[j, d] m[d]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    constant,
    dims,
    native_producer,
    only_consumer,
)
from openwork.graph.operands import split_constant
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.followed import is_plain, maker
from openwork.graph.slots import is_read, rebuilt, slot


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
    return _Scaled(node, attention, maker(slot(attention, "v")), split[1])


def _check(found: _Scaled) -> str | None:
    width = (dims(found.attention.outputs[0]) or (None,))[-1]
    multiplier = found.multiplier
    if multiplier.dtype != np.float32 or multiplier.size != width or multiplier.shape[-1] != width:
        return "the constant does not have one float32 number for each channel"
    if not np.all(np.isfinite(multiplier) & (multiplier > 0)):
        return "the constant is not positive and finite"
    if only_consumer(found.attention.outputs[0]) is None:
        return "the result of attention is read by other nodes too"
    if any(map(is_read, found.attention.outputs[1:])):
        return "the values of attention are kept for the next run, which must not be multiplied"
    if found.linear is None or not is_plain(found.linear):
        return "its values are not made by a product of their own without anything after it"
    if only_consumer(found.linear.outputs[0]) is not found.attention:
        return "its values are read by other nodes too"
    return None


def _scaled_tensors(found: _Scaled, linear: ir.Node) -> dict[str, ir.Value | None]:
    """The product's tensors after the multiplier: scales (or float weights) and bias."""
    graph, name, by = home(found.node), linear.name or "", found.multiplier.reshape(-1)
    scaled: dict[str, ir.Value | None] = {}
    for entry in ("weight_scale" if slot(linear, "weight_scale") is not None else "weight", "bias"):
        array = constant(slot(linear, entry))
        if array is not None:
            product = array * (by if array.ndim == 1 else by[:, None])
            scaled[entry] = add_initializer(graph, f"{name}.{entry}", product)
    return scaled


def _replace(found: _Scaled) -> Replacement:
    assert found.linear is not None
    product = rebuilt(found.linear, _scaled_tensors(found, found.linear))
    made = rebuilt(found.attention, {"v": product.outputs[0]})
    return Replacement([product, made], [(found.node.outputs[0], made.outputs[0])])


MULTIPLIED_VALUES = Rule("multiplier into values", frozenset({"Mul"}), _match, _check, _replace)
