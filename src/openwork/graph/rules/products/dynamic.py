"""MatMulInteger of what DynamicQuantizeLinear made, scaled to floats, into DynamicLinear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import Array, constant, lone_producer, make, needed, operand, producer
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.sums import summed
from openwork.graph.rules.products.weights import Weight, centred_weight, layer_name
from openwork.graph.stated_patterns import carry_pattern


@dataclass(frozen=True)
class _Dynamic:
    """The Mul by which a product of integers has both of its scales."""

    node: ir.Node
    product: ir.Node
    quantize: ir.Node
    weight: Weight | str


def _factors(value: ir.Value) -> Iterator[ir.Value]:
    """What a value is the product of, through Mul."""
    node = lone_producer(value, "Mul")
    if node is None:
        yield value
        return
    for each in (needed(node, 0), needed(node, 1)):
        yield from _factors(each)


def _sums(value: ir.Value) -> ir.Node | None:
    """The MatMulInteger whose sums, made floats, the value is."""
    cast = lone_producer(value, "Cast")
    if cast is None or value.dtype != ir.DataType.FLOAT:
        return None
    return lone_producer(needed(cast, 0), "MatMulInteger")


def _quantizer(product: ir.Node) -> ir.Node | None:
    """The DynamicQuantizeLinear of the first operand and its zero point."""
    node, point = producer(operand(product, 0), "DynamicQuantizeLinear"), operand(product, 2)
    return node if node is not None and point is node.outputs[2] else None


def _match(node: ir.Node) -> _Dynamic | None:
    factors = [*_factors(needed(node, 0)), *_factors(needed(node, 1))]
    products = [found for value in factors if (found := _sums(value)) is not None]
    if len(products) != 1:
        return None
    quantize = _quantizer(products[0])
    if quantize is None:
        return None
    rest = [value for value in factors if _sums(value) is None]
    scales = [value for value in rest if value is quantize.outputs[1]]
    numbers = [constant(value) for value in rest if value is not quantize.outputs[1]]
    known = [array for array in numbers if array is not None]
    if len(scales) != 1 or not known or len(known) < len(numbers):
        return None
    scale = reduce(np.multiply, known)
    return _Dynamic(node, products[0], quantize, _weight(products[0], scale))


def _weight(product: ir.Node, scale: Array) -> Weight | str:
    integers, point = constant(needed(product, 1)), operand(product, 3)
    if integers is None or integers.ndim != 2:
        return "its weight is not a constant matrix"
    zero = np.zeros((), np.int32) if point is None else constant(point)
    if zero is None or zero.size not in (1, integers.shape[1]):
        return "its weight has neither one constant zero point nor one for each output channel"
    if scale.size not in (1, integers.shape[1]) or scale.dtype != np.float32:
        return "its weight has neither one float32 scale nor one for each output channel"
    if scale.size > 1 and scale.shape[-1] != scale.size:
        return "the scales of its weight do not lie along its output channels"
    centred = integers.astype(np.int32) - zero.astype(np.int32).reshape(-1)
    return centred_weight(centred.T, np.broadcast_to(scale.reshape(-1), integers.shape[1:]))


def _check(found: _Dynamic) -> str | None:
    if needed(found.quantize, 0).dtype != ir.DataType.FLOAT:
        return "what is quantized is not float32"
    return found.weight if isinstance(found.weight, str) else None


def _replace(found: _Dynamic) -> Replacement:
    weight, graph = found.weight, home(found.node)
    assert isinstance(weight, Weight)
    source = needed(found.product, 1)
    name = layer_name(found.product, source, None)
    scale = add_initializer(graph, f"{name}.weight_scale", weight.scale)

    def product(part: Array, layer: str, first: bool) -> list[ir.Node]:
        held = carry_pattern([source], add_initializer(graph, f"{layer}.weight", part))
        inputs = {"x": needed(found.quantize, 0), "weight": held, "weight_scale": scale}
        return [make("DynamicLinear", inputs, {"activation": "none"}, layer)]

    nodes = summed(weight.parts, product, name)
    return Replacement(nodes, [(found.node.outputs[0], nodes[-1].outputs[0])])


DYNAMIC_LINEAR = Rule("dynamic linear", frozenset({"Mul"}), _match, _check, _replace)
