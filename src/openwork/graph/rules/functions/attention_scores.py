"""What stands between the product of queries and keys and the softmax: scales and key masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import KeyMask
from openwork.graph.model import (
    constant,
    describe,
    dims,
    native_producer,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.round_trip import Grid, RoundTrip, round_trip
from openwork.graph.rules.functions.score_masks import Masked, masked_add, masked_where
from openwork.graph.scaling import scaling_of


@dataclass(frozen=True)
class Bias:
    """What is added to the scores: a value; or `value` is a condition, and `low` stands where the score does
    not stay (`keeps`: it stays where the condition is true)."""

    value: ir.Value
    low: ir.Value | None = None
    keeps: bool = True


@dataclass
class Scores:
    """What stands between q k^T and the softmax.

    causal: whether queries see only what is before them. bias: what is added that is no mask, whose reason is
    `bias_reason`. rounding: scale and zero point of the scores' quantizer. after: the part of `scale` that
    comes after it. passed: the nodes, from the softmax upwards, the one that stands in the way among them.
    """

    product: ir.Node | None = None
    scale: float = 1.0
    masks: list[KeyMask] = field(default_factory=list)
    causal: bool = False
    bias: Bias | None = None
    rounding: Grid | None = None
    after: float = 1.0
    reason: str | None = None
    passed: list[ir.Node] = field(default_factory=list)

    def rounding_before(self, factor: float) -> Grid | None:
        """The quantizer of the scores as they are before `scale`, and before a factor of q and k."""
        if self.rounding is None:
            return None
        scale, zero_point = self.rounding
        return float(np.float32(scale * self.after / (self.scale * factor))), zero_point


_PASSED = ("MatMul", "Mul", "Div", "Add", "Where", "Cast")
_MOST_STEPS = 12


def read_scores(value: ir.Value) -> Scores:
    found = Scores()
    while found.product is None and found.reason is None:
        node = producer(value, *_PASSED) or native_producer(value, "Add", "Multiply")
        trip = round_trip(value.producer())
        found.passed += [] if node is None else [node]
        if trip is not None:
            value = _round(trip, found)
        elif node is None:
            found.reason = "its scores are not a product of queries and keys, scaled and masked"
        elif node.op_type == "MatMul":
            found.product = node
        else:
            value = _step(node, found)
    if found.product is None:
        found.passed += _rest(value)
    return found


def _rest(value: ir.Value) -> list[ir.Node]:
    """The nodes from what stands in the way upwards to the product, as far as scales and casts alone do."""
    rest = []
    while (node := producer(value, "MatMul", "Mul", "Div", "Cast")) is not None:
        rest.append(node)
        if node.op_type == "MatMul":
            break
        value = needed(node, 0)
    return rest


def _round(trip: RoundTrip, found: Scores) -> ir.Value:
    """Upwards through a quantizer of the scores."""
    if found.rounding is not None:
        found.reason = "its scores are rounded twice"
    elif only_consumer(trip.quantize.outputs[0]) is not trip.dequantize:
        found.reason = "the integers of its scores are read by other nodes too"
    found.rounding, found.after = trip.grid, found.scale
    return trip.source


def _step(node: ir.Node, found: Scores) -> ir.Value:
    """One node upwards through scaling and masking; notes what it did in `found`."""
    if node.op_type in ("Mul", "Div"):
        split = scaling_of(node)
        if split is not None:
            found.scale *= split[1]
            return split[0]
    elif node.op_type in ("Add", "Where") and None not in node.inputs[:2]:
        masked = masked_add(node, _leads) if node.op_type == "Add" else masked_where(node)
        if masked is not None:
            found.reason = _take(masked, node, found)
            return masked.scores
    found.reason = f"its scores pass through {describe(node)}, which is neither a scale nor a key mask"
    return node.outputs[0]


def _leads(value: ir.Value) -> bool:
    """Whether scales, masks, casts and round trips lead up to a product of two computed values."""
    for _ in range(_MOST_STEPS):
        trip = round_trip(value.producer())
        node = producer(value, *_PASSED) or native_producer(value, "Add", "Multiply")
        if trip is not None:
            value = trip.source
        elif node is None:
            return False
        elif node.op_type == "MatMul":
            return all(constant(operand) is None for operand in node.inputs)
        elif node.op_type == "Where":
            return any(_leads(needed(node, index)) for index in (1, 2))
        elif node.op_type == "Add":
            return any(_leads(needed(node, index)) for index in (0, 1))
        else:
            split = scaling_of(node) if node.op_type in ("Mul", "Div") else (needed(node, 0), 1.0)
            if split is None:
                return False
            value = split[0]
    return False


def _take(masked: Masked, node: ir.Node, found: Scores) -> str | None:
    """Note a mask, or a bias; gives the reason why it cannot be one."""
    mask = masked.mask
    if mask.reason:
        return _take_bias(masked, node, found)
    if mask.keys is not None:
        found.masks.append(mask.keys)
    found.causal |= mask.causal
    if found.rounding is not None and (mask.keys is not None or mask.causal):
        return "its scores are rounded after the mask, which a quantizer does not keep low"
    return None


def _take_bias(masked: Masked, node: ir.Node, found: Scores) -> str | None:
    why = f"its mask, which {describe(node)} applies, {masked.mask.reason}"
    bias = masked.bias
    if masked.chosen is not None:
        made = Bias(*masked.chosen, masked.keeps)
    elif bias is not None:
        made = Bias(bias)
    else:
        return why
    shape = dims(made.value)
    if shape is None or not 1 <= len(shape) <= 4 or (bias is not None and bias.dtype != ir.DataType.FLOAT):
        return f"{why}, nor a bias f32 of up to four axes"
    if found.bias is not None:
        return f"{why}; it has two biases"
    if found.rounding is not None:
        return "its scores are rounded after the bias"
    if found.scale != 1.0 and made.low is None:
        return f"{why}; it is scaled with the scores"
    found.bias = made
    return None
