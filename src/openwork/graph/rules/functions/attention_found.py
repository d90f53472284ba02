"""What a Softmax between two products is found to be: the parts of an attention."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import KeyMask
from openwork.graph.model import constant, dims, needed, only_consumer, producer
from openwork.graph.round_trip import Grid, round_trip
from openwork.graph.rules.functions.attention_operands import (
    Operand,
    groups_of,
    read_operand,
    read_result,
    split_value,
)
from openwork.graph.rules.functions.attention_scores import Scores, read_scores


@dataclass(frozen=True, kw_only=True)
class FoundAttention:
    """An attention, or with a `reason` what only looks like one."""

    softmax: ir.Node
    q: Operand
    k: Operand
    v: Operand
    scores: Scores
    scale: float
    heads: int
    result: ir.Value
    joined: ir.Value
    roundings: dict[str, float | int] = field(default_factory=dict)
    reason: str | None = None
    parts: tuple[ir.Node, ...] = ()

    @property
    def mask(self) -> KeyMask | None:
        return self.scores.masks[0] if self.scores.masks else None

    @property
    def size(self) -> int | None:
        """Channels of a head; None where the queries' are not known or not split evenly."""
        width = (dims(self.q.source) or (None,))[-1]
        return width // self.heads if isinstance(width, int) and width % self.heads == 0 else None

    @property
    def groups(self) -> int | None:
        """Heads of keys and values; None where they are not known or not alike."""
        if self.size is None:
            return None
        keys, values = (groups_of(part, self.heads, self.size) for part in (self.k, self.v))
        return keys if keys == values else None

    @property
    def as_rows(self) -> bool:
        """Whether the result is joined into rows, [B * L, H]."""
        return len(dims(self.joined) or ()) == 2

    @property
    def last(self) -> ir.Node:
        """The node in whose place the attention stands."""
        return self.joined.producer() or self.softmax


def without_nan_guard(softmax: ir.Node) -> ir.Value:
    """The weights after Where(IsNaN(p), 0, p), which torch puts behind a softmax that may see only -inf."""
    value = softmax.outputs[0]
    for reader in dict.fromkeys(use.node for use in value.uses()):
        if reader.op_type == "Where" and reader.inputs[2] is value:
            guard = producer(reader.inputs[0], "IsNaN")
            if guard is not None and guard.inputs[0] is value and np.all(constant(reader.inputs[1]) == 0):
                return reader.outputs[0]
    return value


def put_together(found: FoundAttention, part: Operand) -> ir.Value | None:
    """The value [B, G, T, D] of all keys or values, where more than this attention reads it."""
    if part.whole is not None:
        shared = part.whole.is_graph_output() or len(part.whole.uses()) > 1
        return part.whole if shared else None
    if part.cached is not None or found.groups is None:
        return None
    return split_value(part, found.groups)


def _rounded(weights: ir.Value) -> tuple[ir.Value, Grid | None]:
    """The weights after a quantizer that nothing else reads, and its scale and zero point."""
    quantize = only_consumer(weights)
    dequantize = only_consumer(quantize.outputs[0]) if quantize is not None else None
    trip = round_trip(dequantize)
    if trip is None or trip.quantize is not quantize:
        return weights, None
    return trip.dequantize.outputs[0], trip.grid


def _roundings(scores: Grid | None, weights: Grid | None) -> dict[str, float | int]:
    """The attributes that say how scores and weights are rounded."""
    named = {"score": scores, "probability": weights}
    found: dict[str, float | int] = {}
    for name, grid in named.items():
        if grid is not None:
            found |= {f"{name}_scale": grid[0], f"{name}_zero_point": grid[1]}
    return found


def match_attention(softmax: ir.Node) -> FoundAttention | None:
    weights, rounding = _rounded(without_nan_guard(softmax))
    mix = only_consumer(weights)
    if mix is None or mix.op_type != "MatMul" or mix.inputs[0] is not weights:
        return None
    scores = read_scores(needed(softmax, 0))
    parts = (*scores.passed, mix)
    if scores.product is None:
        return _refused(softmax, parts, scores.reason)
    q, k = (read_operand(needed(scores.product, index)) for index in (0, 1))
    shape = dims(mix.outputs[0])
    heads = shape[1] if shape is not None and len(shape) == 4 else None
    factor = q.scale * k.scale
    scale = scores.scale * factor
    if scores.rounding is not None and not scale > 0:
        return _refused(softmax, parts, "its scores are rounded, and scaled by a number that is not positive")
    if not isinstance(heads, int):
        return _refused(softmax, parts, "its heads are not a fixed second dimension of four")
    return FoundAttention(
        softmax=softmax,
        q=q,
        k=k,
        v=read_operand(needed(mix, 1)),
        scores=scores,
        scale=scale,
        heads=heads,
        result=mix.outputs[0],
        joined=read_result(mix.outputs[0]),
        roundings=_roundings(scores.rounding_before(factor), rounding),
        reason="it has two different key masks" if len(set(scores.masks)) > 1 else None,
        parts=parts,
    )


def _refused(softmax: ir.Node, parts: tuple[ir.Node, ...], reason: str | None) -> FoundAttention:
    mix = parts[-1]
    nothing, result = Operand(needed(mix, 0), 1.0, needed(mix, 1)), mix.outputs[0]
    return FoundAttention(
        softmax=softmax,
        q=nothing,
        k=nothing,
        v=nothing,
        scores=Scores(),
        scale=1.0,
        heads=1,
        result=result,
        joined=result,
        reason=reason,
        parts=parts,
    )
