"""What stands between the product of queries and keys and the softmax: scales and key masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import DROPPED, KEPT, NEITHER, KeyMask, MaskUse, key_mask
from openwork.graph.model import Array, ModelError, constant, describe, needed, only_consumer, producer
from openwork.graph.probe import MAX_NODES, Cone, cone, evaluations
from openwork.graph.round_trip import Grid, RoundTrip, round_trip
from openwork.graph.scaling import scaling_of

LOWEST_KEPT = -1e4
"""An additive mask this low leaves exp(s) = 0 for dropped keys, for scores of sane size."""


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


def _additive(actual: Array) -> Array:
    """0 for kept keys and very low for the others."""
    dropped = np.where(actual <= LOWEST_KEPT, DROPPED, NEITHER)
    return np.where(actual == 0, KEPT, dropped).astype(np.int8)


def _boolean(actual: Array) -> Array:
    return np.where(actual.astype(bool), KEPT, DROPPED).astype(np.int8)


def _inverted(actual: Array) -> Array:
    return np.where(actual.astype(bool), DROPPED, KEPT).astype(np.int8)


def _of_keys(states: Array, batch: int, length: int) -> Array | str:
    """What a mask of scores [batch, heads, queries, keys] says of each key, if it says it to all queries."""
    heads = states.shape[-3] if states.ndim >= 3 else 1
    try:
        full = np.broadcast_to(states, (batch, heads, length, length))
    except ValueError:
        return f"is {list(states.shape)} for scores of [{batch}, heads, {length}, {length}]"
    if (full != full[:, :, :1]).any():
        return "differs from query to query"
    if (full != full[:, :1]).any():
        return "differs from head to head"
    return full[:, 0, 0]


def _use(states: Callable[[Array], Array]) -> MaskUse:
    return MaskUse(
        states,
        _of_keys,
        lambda batch, length: (batch, 1, length, length),
        f"adds other numbers than 0 for kept keys and at most {LOWEST_KEPT:.0f} for dropped ones",
    )


_ADDITIVE, _BOOLEAN, _INVERTED = _use(_additive), _use(_boolean), _use(_inverted)


@dataclass(frozen=True)
class _Masked:
    """Scores, and what masks them: nothing, a key mask, or why that is none."""

    scores: ir.Value
    mask: KeyMask | str | None


def _is_low(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and bool(np.all(array <= LOWEST_KEPT))


def _masked_where(node: ir.Node) -> _Masked | None:
    """Where(condition, scores, low) or Where(condition, low, scores)."""
    condition, first, second = (needed(node, index) for index in range(3))
    for scores, low, use in ((first, second, _BOOLEAN), (second, first, _INVERTED)):
        if _is_low(low) and (found := cone(condition)) is not None:
            return _Masked(scores, key_mask(condition, use) if found.sources else _fixed(found, use))
    return None


def _masked_add(node: ir.Node) -> _Masked | None:
    """Scores + bias; there is no mask where the bias is 0 everywhere."""
    a, b = needed(node, 0), needed(node, 1)
    masks = [_Masked(scores, _bias_mask(bias)) for scores, bias in ((a, b), (b, a))]
    return next((found for found in masks if not isinstance(found.mask, str)), None) or _refused(
        masks, (b, a)
    )


def _refused(masks: list[_Masked], biases: tuple[ir.Value, ...]) -> _Masked | None:
    """Why neither operand is a mask: the one that fewer nodes make is the bias, the other one the scores."""
    cones = [cone(bias) for bias in biases]
    sizes = [len(found.nodes) if found is not None else MAX_NODES + 1 for found in cones]
    return None if min(sizes) > MAX_NODES else masks[sizes.index(min(sizes))]


def _bias_mask(bias: ir.Value) -> KeyMask | str | None:
    """The mask that a bias is, None for one that is 0 everywhere, or why it is no mask."""
    found = cone(bias)
    if found is None:
        return "is computed from more than inputs and shapes"
    return key_mask(bias, _ADDITIVE) if found.sources else _fixed(found, _ADDITIVE)


def _fixed(found: Cone, use: MaskUse) -> str | None:
    """Why what depends on shapes alone is no key mask; None where it keeps every key."""
    try:
        states = [use.states(np.asarray(y)) for *_, y in evaluations(found)]
    except ModelError as error:
        return f"cannot be computed: {error}"
    if all(bool((y == KEPT).all()) for y in states):
        return None
    if any(bool((y == NEITHER).any()) for y in states):
        return "is a bias that is the same for all inputs"
    differs = any(y.ndim > 1 and bool((y != y[..., :1, :]).any()) for y in states)
    return "differs from query to query" if differs else "drops the same keys for all inputs"


def read_scores(value: ir.Value) -> Scores:
    found = Scores()
    while found.product is None and found.reason is None:
        node = producer(value, "MatMul", "Mul", "Div", "Add", "Where", "Cast")
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
        if masked is not None:
            found.reason = _take(masked, node, found)
            return masked.scores
    found.reason = f"its scores pass through {describe(node)}, which is neither a scale nor a key mask"
    return node.outputs[0]


def _take(masked: _Masked, node: ir.Node, found: Scores) -> str | None:
    """Note a mask; gives the reason why it cannot be one."""
    if isinstance(masked.mask, str):
        return f"its mask, which {describe(node)} applies, {masked.mask}"
    if masked.mask is None:
        return None
    found.masks.append(masked.mask)
    if found.rounding is not None:
        return "its scores are rounded after the mask, which a quantizer does not keep low"
    return None
