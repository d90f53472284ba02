"""What stands around a group norm goes into it: the activation behind, and the number of each channel that is
added before."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.model import attributes, dims, native_producer, needed, only_consumer
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow, is_float
from openwork.graph.slots import filled, rebuilt, slot

NORM = "GroupNorm"
_ACTIVATION_OF = {operator_of_activation(name): name for name in ACTIVATIONS if name != "none"}


def _match_activation(node: ir.Node) -> Follow | None:
    norm = native_producer(needed(node, 0), NORM)
    return None if norm is None else Follow(node, norm)


def _check_activation(found: Follow) -> str | None:
    if only_consumer(found.step.outputs[0]) is None:
        return "the group norm is read by other nodes too"
    if not is_float(found.step) or attributes(found.step)["activation"] != "none":
        return "the group norm already has something after it"
    return None


def _replace_activation(found: Follow) -> Replacement:
    values = {"activation": _ACTIVATION_OF[found.node.op_type], **attributes(found.node)}
    made = rebuilt(found.step, {}, **values)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


ACTIVATION_INTO_NORM = Rule(
    "activation into group norm",
    frozenset(_ACTIVATION_OF),
    _match_activation,
    _check_activation,
    _replace_activation,
    domain=DOMAIN,
)


def _match_shift(node: ir.Node) -> Follow | None:
    """A sum with one pixel for each image in front of a norm."""
    total = native_producer(filled(node, "x"), "Add")
    pixel = None if total is None else slot(total, "b")
    if total is None or pixel is None or slot(node, "shift") is not None:
        return None
    return Follow(node, total, pixel) if (dims(pixel) or ())[1:3] == (1, 1) else None


def _check_shift(found: Follow) -> str | None:
    if only_consumer(found.step.outputs[0]) is None:
        return "the sum is read by other nodes too"
    if attributes(found.step):
        return "the sum reads integers, or ends in an activation"
    image = filled(found.step, "a")
    return "the image has one pixel" if (dims(image) or ())[1:3] == (1, 1) else None


def _replace_shift(found: Follow) -> Replacement:
    made = rebuilt(found.node, {"x": filled(found.step, "a"), "shift": found.other})
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


SHIFT_INTO_NORM = Rule(
    "sum with a pixel into group norm",
    frozenset({NORM}),
    _match_shift,
    _check_shift,
    _replace_shift,
    domain=DOMAIN,
)
