"""What follows a product goes into it: activation, residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.model import attributes, make, needed, same_dims
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.followed import Follow, alone, is_float, is_plain, maker
from openwork.graph.slots import rebuilt, row_of, slot, slots


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


KINDS = ("scale", "zero_point")


@dataclass(frozen=True)
class _Sum(Follow):
    """A sum whose operand in the slot `own` a product makes; the other operand stands in `beside`."""

    beside: str = "b"

    @property
    def rounding(self) -> dict[str, Any] | None:
        """How the product rounds its sums before the other operand is added; None where it does not, or not
        alone: an activation, another residual, a factor or a table would come before."""
        own, given = "a" if self.beside == "b" else "b", attributes(self.step)
        read = [attributes(self.node).get(f"{own}_{kind}") for kind in KINDS]
        made = [given.get(f"y_{kind}") for kind in KINDS]
        between = ["residual", *(each.name for each in row_of(self.step).tensors if "y_scale" in each.needs)]
        before = [name for name in between if slot(self.step, name) is not None]
        if None in read or read != made or before or given["activation"] != "none":
            return None
        return {f"sum_{kind}": number for kind, number in zip(KINDS, made, strict=True)}

    @property
    def values(self) -> dict[str, Any]:
        """What the sum ends in, and how its other operand is quantized, as a product says it."""
        given = attributes(self.node)
        held = {name: value for name, value in given.items() if name[1:2] != "_" or name[0] == "y"}
        if "activation" in held:
            held["activation_last"] = 1
        for kind in KINDS:
            if f"{self.beside}_{kind}" in given:
                held[f"residual_{kind}"] = given[f"{self.beside}_{kind}"]
        return held


def _match_residual(node: ir.Node) -> _Sum | None:
    """The later of two products gets the sum, so that its residual is already there."""
    candidates = []
    for own, beside in (("a", "b"), ("b", "a")):
        step, other = maker(slot(node, own)), slot(node, beside)
        if step is not None and other is not None:
            candidates.append(_Sum(node, step, other, beside))
    free = [c for c in candidates if _check_residual(c) is None]
    found = free or candidates
    return found[-1] if found else None


def _check_residual(found: _Sum) -> str | None:
    if slot(found.step, "residual") is not None:
        return "the product already has a residual"
    if found.other is found.step.outputs[0]:
        return "the sum is that of a product and itself"
    if not is_float(found.step) and found.rounding is None:
        return "the product is rounded, and not as the sum reads it or with something else before"
    assert found.other is not None
    if not same_dims(found.other, found.step.outputs[0]):
        return "the two summands do not have the same known shape"
    if "activation" in found.values and attributes(found.step)["activation"] != "none":
        return "the product already has an activation, and the sum ends in one too"
    if "residual_scale" in found.values and "x_scale" not in attributes(found.step):
        return "it is a product of floats, whose residual is float"
    return alone(found)


def _replace_residual(found: _Sum) -> Replacement:
    step, values = found.step, {**(found.rounding or {}), **found.values}
    kept = {name: value for name, value in attributes(step).items() if not name.startswith("y_")}
    made = make(step.op_type, {**slots(step), "residual": found.other}, {**kept, **values}, step.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


RESIDUAL_ADD = Rule(
    "residual into product",
    frozenset({"Add"}),
    _match_residual,
    _check_residual,
    _replace_residual,
    domain=DOMAIN,
)
