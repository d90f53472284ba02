"""What stands between the product of queries and keys and the softmax: scales and key masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, ModelError, constant, needed, only_consumer, producer
from openwork.graph.probe import MaskUse, cone, evaluations, probe_mask
from openwork.graph.round_trip import Grid, RoundTrip, round_trip
from openwork.graph.scaling import scaling_of

LOWEST_KEPT = -1e4
"""An additive mask this low leaves exp(s) = 0 for dropped keys, for scores of sane size."""


@dataclass
class Scores:
    """What stands between q k^T and the softmax.

    rounding: scale and zero point of the scores' quantizer. after: the part of `scale` that comes after it.
    """

    product: ir.Node | None = None
    scale: float = 1.0
    masks: list[ir.Value] = field(default_factory=list)
    rounding: Grid | None = None
    after: float = 1.0
    reason: str | None = None

    def rounding_before(self, factor: float) -> Grid | None:
        """The quantizer of the scores as they are before `scale`, and before a factor of q and k."""
        if self.rounding is None:
            return None
        scale, zero_point = self.rounding
        return float(np.float32(scale * self.after / (self.scale * factor))), zero_point


def _additive(mask: Array, actual: Array) -> bool:
    """Whether `actual`, broadcast to [B, 1, L, L], is 0 for kept keys and very low for the others."""
    return _keys(mask, actual, lambda x: x == 0, lambda x: x <= LOWEST_KEPT)


def _boolean(mask: Array, actual: Array) -> bool:
    return actual.dtype == bool and _keys(mask, actual, lambda x: x, lambda x: ~x)


def _inverted(mask: Array, actual: Array) -> bool:
    return actual.dtype == bool and _keys(mask, actual, lambda x: ~x, lambda x: x)


def _keys(
    mask: Array, actual: Array, kept: Callable[[Array], Array], dropped: Callable[[Array], Array]
) -> bool:
    batch, length = mask.shape
    if actual.ndim > 4 or (actual.ndim == 4 and actual.shape[1] != 1):
        return False
    try:
        full = np.broadcast_to(actual, (batch, 1, length, length))
    except ValueError:
        return False
    keys = np.broadcast_to(mask[:, None, None, :] != 0, full.shape)
    return bool(np.all(np.where(keys, kept(full), dropped(full))))


def _use(expected: Callable[[Array, Array], bool]) -> MaskUse:
    return MaskUse(expected, lambda batch, length: (batch, 1, length, length))


def _is_nothing(value: ir.Value) -> bool:
    """Whether a value depends on shapes alone and is 0 everywhere."""
    found = cone(value)
    if found is None or found.sources:
        return False
    try:
        return all(bool(np.all(y == 0)) for *_, y in evaluations(found, None))
    except ModelError:
        return False


def _is_low(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and bool(np.all(array <= LOWEST_KEPT))


def _masked_where(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """(scores, mask) of Where(condition, scores, low) or Where(condition, low, scores)."""
    condition, first, second = (needed(node, index) for index in range(3))
    if _is_low(second) and (mask := probe_mask(condition, _use(_boolean))) is not None:
        return first, mask
    if _is_low(first) and (mask := probe_mask(condition, _use(_inverted))) is not None:
        return second, mask
    return None


def _masked_add(node: ir.Node) -> tuple[ir.Value, ir.Value | None] | None:
    """(scores, mask) of scores + bias, mask None where the bias is 0 everywhere."""
    for scores, bias in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        if scores is None or bias is None:
            continue
        mask = probe_mask(bias, _use(_additive))
        if mask is not None or _is_nothing(bias):
            return scores, mask
    return None


def read_scores(value: ir.Value) -> Scores:
    found = Scores()
    while found.product is None and found.reason is None:
        node = producer(value, "MatMul", "Mul", "Div", "Add", "Where", "Cast")
        trip = round_trip(value.producer())
        if trip is not None:
            value = _round(trip, found)
        elif node is None:
            found.reason = "its scores are not a product of queries and keys, scaled and masked"
        elif node.op_type == "MatMul":
            found.product = node
        else:
            value = _step(node, found)
    return found


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
        masked = _masked_add(node) if node.op_type == "Add" else _masked_where(node)
        if masked is not None and masked[1] is not None and found.rounding is not None:
            found.reason = "its scores are rounded after the mask, which a quantizer does not keep low"
            return masked[0]
        if masked is not None:
            found.masks.extend([] if masked[1] is None else [masked[1]])
            return masked[0]
    found.reason = (
        f"its scores pass through {node.op_type} {node.name!r}, which is neither a scale nor a key mask"
    )
    return node.outputs[0]
