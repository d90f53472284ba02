"""The sum of another value and a product that is only reshaped moves before the Reshape, where the product
takes it as its residual: a block of attention over pixels, added to the image that these are."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import dims, native_producer, only_consumer, same_dims
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import is_float, maker
from openwork.graph.slots import filled, rebuilt, slot
from openwork.graph.views import reshaped, target_shape


@dataclass(frozen=True)
class _Sum:
    node: ir.Node
    reshape: ir.Node
    own: str
    """The slot of the sum that reads the reshaped product."""

    @property
    def other(self) -> ir.Value:
        return filled(self.node, "b" if self.own == "a" else "a")


def _match(node: ir.Node) -> _Sum | None:
    for own, beside in (("a", "b"), ("b", "a")):
        reshape = native_producer(slot(node, own), "Reshape")
        step = None if reshape is None else maker(filled(reshape, "x"))
        if reshape is None or step is None or slot(node, beside) is None:
            continue
        if slot(step, "residual") is None and is_float(step):
            return _Sum(node, reshape, own)
    return None


def _check(found: _Sum) -> str | None:
    product, made = filled(found.reshape, "x"), found.reshape.outputs[0]
    if only_consumer(product) is None or only_consumer(made) is None:
        return "the product is read by other nodes too"
    if not same_dims(found.other, made):
        return "the two summands do not have the same known shape"
    for given, wanted in ((dims(made), dims(product)), (dims(product), dims(made))):
        target = target_shape(given, wanted)
        if isinstance(target, str):
            return target
    return None


def _replace(found: _Sum) -> Replacement:
    product, name = filled(found.reshape, "x"), found.node.name or ""
    beside = "b" if found.own == "a" else "a"
    other = reshaped(found.other, dims(product) or (), f"{name}.{beside}")
    total = rebuilt(found.node, {found.own: product, beside: other.outputs[0]})
    back = reshaped(total.outputs[0], dims(found.node.outputs[0]) or (), f"{name}.y")
    return Replacement([other, total, back], [(found.node.outputs[0], back.outputs[0])])


SUM_BEFORE_RESHAPE = Rule("sum before a reshape", frozenset({"Add"}), _match, _check, _replace, domain=DOMAIN)
