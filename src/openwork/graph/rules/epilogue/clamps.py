"""A clamp goes into the sum or the product of two values before it."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import attributes, native_producer, needed
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow, alone, is_float
from openwork.graph.slots import rebuilt

_CLAMPS = {"Relu": "relu", "Clip": "clip"}


def _match_clamp(node: ir.Node) -> Follow | None:
    """A clamp behind a sum or a product of two values that ends in nothing else yet."""
    step = native_producer(needed(node, 0), "Add", "Multiply")
    if step is None or not is_float(step) or "activation" in attributes(step):
        return None
    return Follow(node, step)


def _replace_clamp(found: Follow) -> Replacement:
    values = {"activation": _CLAMPS[found.node.op_type], **attributes(found.node)}
    made = rebuilt(found.step, {}, **values)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


CLAMP = Rule(
    "clamp into sum or product of two", frozenset(_CLAMPS), _match_clamp, alone, _replace_clamp, domain=DOMAIN
)
