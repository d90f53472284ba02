"""What follows a product goes into it: bias, activation, residual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

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
from openwork.graph.operators import DOMAIN
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.weights import constant_bias, layer_name

LINEARS = ("Linear", "LinearFloat")
RESIDUAL = 1


@dataclass(frozen=True)
class _Follow:
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


def _linear(value: ir.Value | None) -> ir.Node | None:
    return native_producer(value, *LINEARS)


def is_plain(linear: ir.Node) -> bool:
    """Whether nothing follows the sum and the bias yet."""
    return (
        attributes(linear)["activation"] == "none" and operand(linear, RESIDUAL) is None and _is_float(linear)
    )


def _is_float(linear: ir.Node) -> bool:
    return "y_scale" not in attributes(linear)


def _match_bias(node: ir.Node) -> _Follow | None:
    for index in (0, 1):
        linear, other = _linear(needed(node, index)), needed(node, 1 - index)
        if linear is not None and constant(other) is not None:
            return _Follow(node, linear, other)
        if linear is not None and constant_bias(other, _outputs(linear)) is not None:
            return _Follow(node, linear, other)
    return None


def _outputs(linear: ir.Node) -> int:
    weight = constant(linear.inputs[2])
    return 0 if weight is None else int(weight.shape[0])


def _alone(found: _Follow) -> str | None:
    if only_consumer(found.linear.outputs[0]) is None:
        return "the product is read by other nodes too"
    return None


def _check_bias(found: _Follow) -> str | None:
    if not is_plain(found.linear) or operand(found.linear, bias_index(found.linear)) is not None:
        return "the product already has a bias or something after it"
    if constant_bias(found.other, _outputs(found.linear)) is None:
        return "the constant that is added does not have one float32 number for each output channel"
    return _alone(found)


def _replace_bias(found: _Follow) -> Replacement:
    bias = constant_bias(found.other, _outputs(found.linear))
    name = found.linear.name or ""
    if found.other is not None and name.endswith("MatMul"):
        name = layer_name(found.linear, None, found.other)
    assert bias is not None
    value = add_initializer(home(found.node), f"{name}.bias", bias)
    made = rebuilt(found.linear, name, {bias_index(found.linear): value})
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


BIAS = Rule("bias into product", frozenset({"Add"}), _match_bias, _check_bias, _replace_bias)


def _match_activation(node: ir.Node) -> _Follow | None:
    linear = _linear(needed(node, 0))
    return None if linear is None else _Follow(node, linear)


def _check_activation(found: _Follow) -> str | None:
    return _alone(found) or (None if is_plain(found.linear) else "the product already has something after it")


def _replace_activation(found: _Follow) -> Replacement:
    made = rebuilt(found.linear, found.linear.name or "", {}, activation=found.node.op_type.lower())
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


ACTIVATION = Rule(
    "activation into product",
    frozenset({"Gelu", "Relu"}),
    _match_activation,
    _check_activation,
    _replace_activation,
    domain=DOMAIN,
)


def _match_residual(node: ir.Node) -> _Follow | None:
    """The later of two products gets the sum, so that its residual is already there."""
    candidates = []
    for index in (0, 1):
        linear = _linear(needed(node, index))
        if linear is not None:
            candidates.append(_Follow(node, linear, needed(node, 1 - index)))
    free = [c for c in candidates if _check_residual(c) is None]
    found = free or candidates
    return found[-1] if found else None


def _check_residual(found: _Follow) -> str | None:
    if operand(found.linear, RESIDUAL) is not None:
        return "the product already has a residual"
    if found.other is found.linear.outputs[0] or not _is_float(found.linear):
        return "the sum is not that of a float product and another value"
    assert found.other is not None
    if not same_dims(found.other, found.linear.outputs[0]):
        return "the two summands do not have the same known shape"
    return _alone(found)


def _replace_residual(found: _Follow) -> Replacement:
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


def _match_quantize(node: ir.Node) -> _Follow | None:
    made = native_producer(needed(node, 0), *LINEARS, "Attention")
    return None if made is None else _Follow(node, made)


def _check_quantize(found: _Follow) -> str | None:
    return _alone(found)


def _quantizer(node: ir.Node) -> dict[str, object]:
    found = attributes(node)
    return {"y_scale": found["y_scale"], "y_zero_point": found["y_zero_point"]}


def _replace_quantize(found: _Follow) -> Replacement:
    before = found.linear
    made = make(
        before.op_type, before.inputs, with_attributes(before, **_quantizer(found.node)), before.name or ""
    )
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


QUANTIZED_OUTPUT = Rule(
    "quantize into its producer",
    frozenset({"Quantize"}),
    _match_quantize,
    _check_quantize,
    _replace_quantize,
    domain=DOMAIN,
)


def _match_norm(node: ir.Node) -> _Follow | None:
    norm = native_producer(needed(node, 0), "LayerNorm")
    return None if norm is None else _Follow(node, norm)


def _check_norm(found: _Follow) -> str | None:
    if "y_scale" in attributes(found.linear):
        return "the layer norm already gives u8 with another scale"
    return None


def _replace_norm(found: _Follow) -> Replacement:
    """One layer norm with both outputs; it stands where the old one stood, before all readers of the float
    one.
    """
    norm = found.linear
    made = make("LayerNorm", norm.inputs, with_attributes(norm, **_quantizer(found.node)), norm.name or "")
    values = [(norm.outputs[0], made.outputs[0]), (found.node.outputs[0], made.outputs[1])]
    return Replacement([made], values, before=norm)


QUANTIZED_NORM = Rule(
    "quantize into layer norm",
    frozenset({"Quantize"}),
    _match_norm,
    _check_norm,
    _replace_norm,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Siblings:
    attention: ir.Node
    linears: tuple[ir.Node, ...]


def _match_siblings(node: ir.Node) -> _Siblings | None:
    if attributes(node)["packed"]:
        return None
    linears = tuple(_linear(needed(node, index)) for index in range(3))
    found = tuple(linear for linear in linears if linear is not None)
    return _Siblings(node, found) if len(found) == 3 else None


def _check_siblings(found: _Siblings) -> str | None:
    first = found.linears[0]
    for linear in found.linears:
        if linear.op_type != first.op_type or linear.inputs[0] is not first.inputs[0]:
            return "queries, keys and values are not products of the same input of the same kind"
        if attributes(linear) != attributes(first):
            return "queries, keys and values do not have the same quantizer and activation"
        if not is_plain(linear):
            return "a residual, an activation or a quantizer follows queries, keys or values"
        if only_consumer(linear.outputs[0]) is not found.attention:
            return "queries, keys or values are read by other nodes too"
    return None


def packed_name(names: list[str]) -> str:
    """layer.self.query, layer.self.key, layer.self.value -> layer.self.qkv."""
    stems = {name.rpartition(".")[0] for name in names}
    return f"{stems.pop()}.qkv".lstrip(".") if len(stems) == 1 else "+".join(names)


def _concatenated(found: _Siblings, index: int) -> np.ndarray | None:
    arrays = []
    for linear in found.linears:
        array = constant(operand(linear, index))
        arrays.append(np.zeros(_outputs(linear), np.float32) if array is None else array)
    given = any(operand(linear, index) is not None for linear in found.linears)
    return np.concatenate(arrays) if given else None


def _replace_siblings(found: _Siblings) -> Replacement:
    first, graph = found.linears[0], home(found.attention)
    name = packed_name([linear.name or "" for linear in found.linears])
    slots = ("weight", "weight_scale", "bias") if first.op_type == "Linear" else ("weight", "bias")
    inputs: list[ir.Value | None] = [first.inputs[0], None]
    for index, slot in enumerate(slots, start=2):
        array = _concatenated(found, index)
        inputs.append(None if array is None else add_initializer(graph, f"{name}.{slot}", array))
    linear = make(first.op_type, inputs, attributes(first), name)
    values = with_attributes(found.attention, packed=1)
    made = make(
        "Attention", [linear.outputs[0], operand(found.attention, 3)], values, found.attention.name or ""
    )
    return Replacement([linear, made], [(found.attention.outputs[0], made.outputs[0])])


PACK_SIBLINGS = Rule(
    "pack queries, keys and values",
    frozenset({"Attention"}),
    _match_siblings,
    _check_siblings,
    _replace_siblings,
    domain=DOMAIN,
)
