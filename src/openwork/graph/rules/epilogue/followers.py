"""What follows a product goes into it: bias, activation, residual."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.model import (
    add_initializer,
    attributes,
    constant,
    make,
    native_producer,
    needed,
    only_consumer,
    operand,
    same_dims,
    with_attributes,
)
from openwork.graph.rewrite import Replacement, Rule, home, never
from openwork.graph.rules.products.weights import constant_bias, layer_name

LINEARS = ("Linear", "LinearFloat")
RESIDUAL = 1


@dataclass(frozen=True)
class Follow:
    """A node that reads the output of a product, and the other operand of it."""

    node: ir.Node
    linear: ir.Node
    other: ir.Value | None = None


def bias_index(linear: ir.Node) -> int:
    """The place of the bias among the inputs."""
    return 4 if linear.op_type == "Linear" else 3


def rebuilt(linear: ir.Node, name: str, changed: dict[int, ir.Value | None], **values: object) -> ir.Node:
    """The same product with some inputs and attributes changed."""
    inputs = [changed.get(i, operand(linear, i)) for i in range(bias_index(linear) + 1)]
    return make(linear.op_type, inputs, with_attributes(linear, **values), name)


def linear_of(value: ir.Value | None) -> ir.Node | None:
    return native_producer(value, *LINEARS)


def is_plain(linear: ir.Node) -> bool:
    """Whether nothing follows the sum and the bias yet."""
    return (
        attributes(linear)["activation"] == "none" and operand(linear, RESIDUAL) is None and _is_float(linear)
    )


def _is_float(linear: ir.Node) -> bool:
    return "y_scale" not in attributes(linear)


def _match_bias(node: ir.Node) -> Follow | None:
    for index in (0, 1):
        linear, other = linear_of(needed(node, index)), needed(node, 1 - index)
        if linear is not None and constant(other) is not None:
            return Follow(node, linear, other)
        if linear is not None and constant_bias(other, output_count(linear)) is not None:
            return Follow(node, linear, other)
    return None


def output_count(linear: ir.Node) -> int:
    weight = constant(linear.inputs[2])
    return 0 if weight is None else int(weight.shape[0])


def alone(found: Follow) -> str | None:
    if only_consumer(found.linear.outputs[0]) is None:
        return "the product is read by other nodes too"
    return None


def _check_bias(found: Follow) -> str | None:
    if not is_plain(found.linear) or operand(found.linear, bias_index(found.linear)) is not None:
        return "the product already has a bias or something after it"
    if constant_bias(found.other, output_count(found.linear)) is None:
        return "the constant that is added does not have one float32 number for each output channel"
    return alone(found)


def _replace_bias(found: Follow) -> Replacement:
    bias = constant_bias(found.other, output_count(found.linear))
    name = found.linear.name or ""
    if found.other is not None and name.endswith("MatMul"):
        name = layer_name(found.linear, None, found.other)
    assert bias is not None
    value = add_initializer(home(found.node), f"{name}.bias", bias)
    made = rebuilt(found.linear, name, {bias_index(found.linear): value})
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


BIAS = Rule("bias into product", frozenset({"Add"}), _match_bias, _check_bias, _replace_bias)


def _match_activation(node: ir.Node) -> Follow | None:
    linear = linear_of(needed(node, 0))
    return None if linear is None else Follow(node, linear)


def _takes_last(linear: ir.Node) -> bool:
    """Whether an activation may follow the residual: nothing else is there yet."""
    found = attributes(linear)
    return operand(linear, RESIDUAL) is not None and found["activation"] == "none" and _is_float(linear)


def _check_activation(found: Follow) -> str | None:
    free = is_plain(found.linear) or _takes_last(found.linear)
    return alone(found) or (None if free else "the product already has something after it")


def _replace_activation(found: Follow) -> Replacement:
    values = {"activation": _ACTIVATION_OF[found.node.op_type], **attributes(found.node)}
    if _takes_last(found.linear):
        values["activation_last"] = 1
    made = rebuilt(found.linear, found.linear.name or "", {}, **values)
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
    """The later of two products gets the sum, so that its residual is already there."""
    candidates = []
    for index in (0, 1):
        linear = linear_of(needed(node, index))
        if linear is not None:
            candidates.append(Follow(node, linear, needed(node, 1 - index)))
    free = [c for c in candidates if _check_residual(c) is None]
    found = free or candidates
    return found[-1] if found else None


def _check_residual(found: Follow) -> str | None:
    if operand(found.linear, RESIDUAL) is not None:
        return "the product already has a residual"
    if found.other is found.linear.outputs[0] or not _is_float(found.linear):
        return "the sum is not that of a float product and another value"
    assert found.other is not None
    if not same_dims(found.other, found.linear.outputs[0]):
        return "the two summands do not have the same known shape"
    return alone(found)


def _replace_residual(found: Follow) -> Replacement:
    made = rebuilt(found.linear, found.linear.name or "", {RESIDUAL: found.other})
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


RESIDUAL_ADD = Rule(
    "residual into product",
    frozenset({"Add"}),
    _match_residual,
    _check_residual,
    _replace_residual,
    domain=DOMAIN,
)


def _match_integers(linear: ir.Node) -> Follow | None:
    """A product whose residual was dequantized: it takes the integers."""
    made = native_producer(operand(linear, RESIDUAL), "Dequantize")
    return None if made is None else Follow(made, linear)


def _replace_integers(found: Follow) -> Replacement:
    linear, read = found.linear, attributes(found.node)
    values = {"residual_scale": read["x_scale"], "residual_zero_point": read["x_zero_point"]}
    inputs = [needed(found.node, 0) if i == RESIDUAL else v for i, v in enumerate(linear.inputs)]
    made = make("Linear", inputs, with_attributes(linear, **values), linear.name or "")
    return Replacement([made], [(linear.outputs[0], made.outputs[0])])


RESIDUAL_INTEGERS = Rule(
    "residual as integers", frozenset({"Linear"}), _match_integers, never, _replace_integers, domain=DOMAIN
)
