"""Products with a constant weight: Q/DQ around MatMul or Gemm into Linear of integers, others of floats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    dims,
    make,
    native_producer,
    needed,
    operand,
)
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.products.sums import summed
from openwork.graph.rules.products.weights import (
    Weight,
    constant_bias,
    dequantized,
    layer_name,
    overflows,
    product,
    read_weight,
    rows_are_outputs,
)
from openwork.graph.stated_patterns import carry_pattern

ANCHORS = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True)
class _Quantized:
    node: ir.Node
    dequantize: ir.Node
    weight: Weight | str
    source: ir.Value

    @property
    def x_scale(self) -> float:
        return float(attributes(self.dequantize)["x_scale"])


def _match(node: ir.Node) -> _Quantized | None:
    dequantize = native_producer(needed(node, 0), "Dequantize")
    found = dequantized(needed(node, 1))
    if dequantize is None or found is None:
        return None
    weight = read_weight(found, rows_are_outputs(node))
    return _Quantized(node, dequantize, weight, needed(found[0], 0))


def _bias_reason(node: ir.Node, outputs: int) -> str | None:
    third = operand(node, 2)
    if third is not None and constant_bias(third, outputs) is None:
        return "the third operand of its Gemm is not a constant bias with one number per output channel"
    return None


def _check(found: _Quantized) -> str | None:
    if isinstance(found.weight, str):
        return found.weight
    if overflows(found.x_scale, found.weight):
        return "the product of the scales of its operands is not finite"
    return product(found.node) or _bias_reason(found.node, len(found.weight.scale))


def _replace(found: _Quantized) -> Replacement:
    weight, node, graph = found.weight, found.node, home(found.node)
    assert isinstance(weight, Weight)
    name = layer_name(node, found.source, operand(node, 2))
    bias = constant_bias(operand(node, 2), len(weight.scale))
    values = attributes(found.dequantize)
    scale = add_initializer(graph, f"{name}.weight_scale", weight.scale)

    def product(part: Array, layer: str, first: bool) -> list[ir.Node]:
        inputs = {
            "x": needed(found.dequantize, 0),
            "weight": carry_pattern([found.source], add_initializer(graph, f"{layer}.weight", part)),
            "weight_scale": scale,
            "bias": None if bias is None or not first else add_initializer(graph, f"{name}.bias", bias),
        }
        return [make("Linear", inputs, {**values, "activation": "none"}, layer)]

    nodes = summed(weight.parts, product, name)
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


LINEAR = Rule("linear", ANCHORS, _match, _check, _replace, lasting=True)


@dataclass(frozen=True)
class _Float:
    node: ir.Node
    weight: Array


def _match_float(node: ir.Node) -> _Float | None:
    weight = constant(needed(node, 1))
    return None if weight is None else _Float(node, weight)


def _check_float(found: _Float) -> str | None:
    node, weight = found.node, found.weight
    if weight.ndim != 2 or weight.dtype != np.float32:
        return f"its constant operand is {weight.dtype} {list(weight.shape)}; a weight is a float32 matrix"
    shape = dims(needed(node, 0))
    if shape is None or len(shape) < 2 or needed(node, 0).dtype != ir.DataType.FLOAT:
        return "its first operand is not float32 of a known rank of at least 2"
    if not np.all(np.isfinite(weight)):
        return "its weight holds numbers that are not finite"
    outputs = weight.shape[0] if rows_are_outputs(node) else weight.shape[1]
    return product(node) or _bias_reason(node, outputs)


def _replace_float(found: _Float) -> Replacement:
    node, graph = found.node, home(found.node)
    weight = found.weight if rows_are_outputs(node) else found.weight.T
    name = layer_name(node, needed(node, 1), operand(node, 2))
    bias = constant_bias(operand(node, 2), weight.shape[0])
    inputs = {
        "x": needed(node, 0),
        "weight": carry_pattern([node.inputs[1]], add_initializer(graph, f"{name}.weight", weight)),
        "bias": None if bias is None else add_initializer(graph, f"{name}.bias", bias),
    }
    made = make("Linear", inputs, {"activation": "none"}, name)
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


LINEAR_FLOAT = Rule("linear in float", ANCHORS, _match_float, _check_float, _replace_float)
