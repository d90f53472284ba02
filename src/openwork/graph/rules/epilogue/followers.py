"""What follows a product goes into it: activation, residual."""

from __future__ import annotations

import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.model import attributes, needed, same_dims
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow, alone, is_float, is_plain, maker
from openwork.graph.slots import rebuilt, slot


def _match_activation(node: ir.Node) -> Follow | None:
    step = maker(needed(node, 0))
    return None if step is None else Follow(node, step)


def _takes_last(step: ir.Node) -> bool:
    """Whether an activation may follow the residual: nothing else is there yet."""
    return slot(step, "residual") is not None and attributes(step)["activation"] == "none" and is_float(step)


def _check_activation(found: Follow) -> str | None:
    free = is_plain(found.step) or _takes_last(found.step)
    return alone(found) or (None if free else "the product already has something after it")


def _replace_activation(found: Follow) -> Replacement:
    values = {"activation": _ACTIVATION_OF[found.node.op_type], **attributes(found.node)}
    if _takes_last(found.step):
        values["activation_last"] = 1
    made = rebuilt(found.step, {}, **values)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


_ACTIVATION_OF = {operator_of_activation(name): name for name in ACTIVATIONS if name != "none"}

ACTIVATION = Rule(
    "activation into product",
    frozenset(_ACTIVATION_OF),
    _match_activation,
    _check_activation,
    _replace_activation,
    domain=DOMAIN,
)


def _match_residual(node: ir.Node) -> Follow | None:
    """The later of two products gets the sum, so that its residual is already there: of two values, and with
    nothing else that the sum does."""
    pair = [slot(node, name) for name in ("a", "b")]
    if attributes(node) or pair[1] is None:
        return None
    candidates = []
    for value, other in (pair, pair[::-1]):
        step = maker(value)
        if step is not None and other is not None:
            candidates.append(Follow(node, step, other))
    free = [c for c in candidates if _check_residual(c) is None]
    found = free or candidates
    return found[-1] if found else None


def _check_residual(found: Follow) -> str | None:
    if slot(found.step, "residual") is not None:
        return "the product already has a residual"
    if found.other is found.step.outputs[0] or not is_float(found.step):
        return "the sum is not that of a float product and another value"
    assert found.other is not None
    if not same_dims(found.other, found.step.outputs[0]):
        return "the two summands do not have the same known shape"
    return alone(found)


def _replace_residual(found: Follow) -> Replacement:
    made = rebuilt(found.step, {"residual": found.other})
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


RESIDUAL_ADD = Rule(
    "residual into product",
    frozenset({"Add"}),
    _match_residual,
    _check_residual,
    _replace_residual,
    domain=DOMAIN,
)
