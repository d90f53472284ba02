"""What stands between the product of queries and keys and the softmax: scales and key masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import KeyMask
from openwork.graph.model import (
    describe,
    native_producer,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.round_trip import Grid, RoundTrip, round_trip
from openwork.graph.rules.functions.score_masks import Masked, masked_add, masked_where
from openwork.graph.scaling import scaling_of


@dataclass
class Scores:
    """What stands between q k^T and the softmax.

    rounding: scale and zero point of the scores' quantizer. after: the part of `scale` that comes after it.
    passed: the nodes, from the softmax upwards, the one that stands in the way among them.
    """

    product: ir.Node | None = None
    scale: float = 1.0
    masks: list[KeyMask] = field(default_factory=list)
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
    elif node.op_type != "Cast":
        masked = masked_add(node) if node.op_type == "Add" else masked_where(node)
        if masked is not None:
            found.reason = _take(masked, node, found)
            return masked.scores
    found.reason = f"its scores pass through {describe(node)}, which is neither a scale nor a key mask"
    return node.outputs[0]


def _take(masked: Masked, node: ir.Node, found: Scores) -> str | None:
    """Note a mask; gives the reason why it cannot be one."""
    if isinstance(masked.mask, str):
        return f"its mask, which {describe(node)} applies, {masked.mask}"
    if masked.mask is None:
        return None
    found.masks.append(masked.mask)
    if found.rounding is not None:
        return "its scores are rounded after the mask, which a quantizer does not keep low"
    return None
