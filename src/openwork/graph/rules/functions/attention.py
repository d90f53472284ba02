"""Scaled dot-product attention, from the split of the heads to their join, into Attention."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import KeyMask
from openwork.graph.model import Dims, constant, dims, graph_of, make, needed, only_consumer, producer
from openwork.graph.probe import EQUAL_SIZES
from openwork.graph.rewrite import Replacement, Rule, home, precedes
from openwork.graph.round_trip import Grid, round_trip
from openwork.graph.rules.functions.attention_bias import bias_value, is_infinite, refused_bias
from openwork.graph.rules.functions.attention_operands import (
    Operand,
    groups_of,
    join_heads,
    join_rows,
    moves_as,
    read_operand,
    read_result,
    split_heads,
    split_value,
    splits,
    way_from,
)
from openwork.graph.rules.functions.attention_scores import Scores, read_scores
from openwork.graph.rules.functions.native_mask import native_mask


@dataclass(frozen=True, kw_only=True)
class _Attention:
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


def _without_nan_guard(softmax: ir.Node) -> ir.Value:
    """The weights after Where(IsNaN(p), 0, p), which torch puts behind a softmax that may see only -inf."""
    value = softmax.outputs[0]
    for reader in dict.fromkeys(use.node for use in value.uses()):
        if reader.op_type == "Where" and reader.inputs[2] is value:
            guard = producer(reader.inputs[0], "IsNaN")
            if guard is not None and guard.inputs[0] is value and np.all(constant(reader.inputs[1]) == 0):
                return reader.outputs[0]
    return value


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


def _match(softmax: ir.Node) -> _Attention | None:
    weights, rounding = _rounded(_without_nan_guard(softmax))
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
    return _Attention(
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


def _refused(softmax: ir.Node, parts: tuple[ir.Node, ...], reason: str | None) -> _Attention:
    mix = parts[-1]
    nothing, result = Operand(needed(mix, 0), 1.0, needed(mix, 1)), mix.outputs[0]
    return _Attention(
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


def _default_axis(softmax: ir.Node) -> int:
    """Before opset 13 a Softmax without an axis ran over all dimensions from the second on."""
    return -1 if int(graph_of(softmax).opset_imports.get("", 13)) >= 13 else 1


def _check(found: _Attention) -> str | None:
    if found.reason is not None:
        return found.reason
    axis = found.softmax.attributes.get_int("axis", _default_axis(found.softmax))
    if axis not in (-1, 3):
        return "its softmax does not run over the keys"
    states = dims(found.q.source)
    if states is None or len(states) != 3 or found.size is None or found.q.whole is not None:
        return (
            "its queries do not come from one value [batch, length, channels] of a known number of channels"
        )
    return _check_keys(found, states) or _check_mask(found, states) or _check_moves(found)


def _check_keys(found: _Attention, states: Dims) -> str | None:
    """Keys and values of one form, and of the batch of the queries."""
    keys, values = dims(found.k.source), dims(found.v.source)
    if found.groups is None:
        return (
            f"its keys come from {keys}, its values from {values}, its queries from {states}, which are not "
            "heads of one size"
        )
    for name, part in (("keys", found.k), ("values", found.v)):
        shape = dims(part.source)
        if shape is None or len(shape) not in (3, 4) or not _same_batch(found, shape, states):
            return f"its {name} come from {shape}, its queries from {states}"
        if part.scaled_before:
            return f"its new {name} are scaled before they are put behind the past"
    if len(keys or ()) != len(values or ()) or (found.k.past is None) != (found.v.past is None):
        return f"its keys come from {keys}, its values from {values}"
    if found.v.scale != 1.0:
        return "its values are scaled"
    return next((why for part in (found.k, found.v) if (why := _read_too_soon(found, part))), None)


def _read_too_soon(found: _Attention, part: Operand) -> str | None:
    """Why all keys cannot be what the attention puts together: a node before it reads them."""
    whole = _put_together(found, part)
    if whole is None:
        return None
    own = {*found.parts, *way_from(whole, part.used)}
    others = [use.node for use in whole.uses() if use.node not in own]
    if any(not precedes(found.last, node) for node in others):
        return "its keys with those of the past are read before it"
    return None


def _put_together(found: _Attention, part: Operand) -> ir.Value | None:
    """The value [B, G, T, D] of all keys or values, where more than this attention reads it."""
    if part.whole is not None:
        shared = part.whole.is_graph_output() or len(part.whole.uses()) > 1
        return part.whole if shared else None
    if part.cached is not None or found.groups is None:
        return None
    return split_value(part, found.groups)


def _same_batch(found: _Attention, shape: Dims, states: Dims) -> bool:
    equal = graph_of(found.softmax).meta.get(EQUAL_SIZES, {})
    return bool(equal.get(shape[0], shape[0]) == equal.get(states[0], states[0]))


def _check_mask(found: _Attention, states: Dims) -> str | None:
    """Whether mask and keys are of other sizes, or one mask is for a batch of any size."""
    bias = found.scores.bias
    if bias is not None:
        refused = refused_bias(bias, found.heads)
        if refused is None and _without_nan_guard(found.softmax) is not found.softmax.outputs[0]:
            refused = (
                "its bias may leave a query nothing, where its weights are 0" if is_infinite(bias) else None
            )
        if refused is not None:
            return refused
    if found.mask is None:
        return None
    alone = found.k.whole is None and found.k.cached is None
    keys = (states[0], (dims(found.k.source) or (None, None))[1]) if alone else states[:1]
    pairs = list(zip(found.mask.shape, keys, strict=False))
    differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if differ or any(a == 1 and b != 1 for a, b in pairs):
        return f"its mask is {list(found.mask.shape)}, its keys are {list(keys)}"
    return None


def _check_moves(found: _Attention) -> str | None:
    heads, groups = found.heads, found.groups or found.heads
    if not moves_as(found.q.source, found.q.used, found.q.scale, heads, split_heads):
        return f"its queries are not split into {heads} heads as [batch, heads, length, size]"
    for name, part, turned in (("keys", found.k, True), ("values", found.v, False)):
        if not splits(part, groups, heads, turned):
            return f"its {name} are not split into {groups} heads as [batch, heads, length, size]"
    expected = join_rows if found.as_rows else join_heads
    if not moves_as(found.result, found.joined, 1.0, heads, expected):
        return "its result is not joined into [batch, length, channels]"
    return None


def _side_by_side(found: _Attention) -> ir.Value | None:
    """The one value that is split into queries, keys and values; None where they are values of their own."""
    sources = [part.source for part in (found.q, found.k, found.v)]
    split = producer(sources[0], "Split")
    if split is None or list(split.outputs) != sources:
        return None
    return needed(split, 0) if split.attributes.get_int("axis", 0) in (-1, 2) else None


def _inputs(found: _Attention) -> dict[str, ir.Value | None]:
    """What q, k, v and the past read."""
    if found.k.cached is not None and found.k.whole is None:
        return {"q": found.q.source, "past_k": found.k.cached, "past_v": found.v.cached}
    packed = _side_by_side(found)
    states = {"q": found.q.source, "k": found.k.source, "v": found.v.source}
    return {
        **({"q": packed} if packed is not None else states),
        "past_k": found.k.past,
        "past_v": found.v.past,
    }


def _replace(found: _Attention) -> Replacement:
    values: dict[str, float | int] = {"heads": found.heads, "scale": found.scale, **found.roundings}
    if found.groups != found.heads:
        values["kv_heads"] = found.groups or found.heads
    if found.scores.causal:
        values["causal"] = 1
    graph, nodes, inputs = home(found.softmax), list[ir.Node](), _inputs(found)
    if found.mask is not None:
        inputs["mask"], made_mask = native_mask(graph, found.mask, found.last)
        nodes += made_mask
    if found.scores.bias is not None:
        inputs["bias"], made_bias = bias_value(graph, found.scores.bias, found.last)
        nodes += made_bias
    made = make("Attention", inputs, values, _name(found))
    nodes.append(made)
    if found.as_rows:
        width = (dims(found.joined) or (None,))[-1]
        nodes.append(make("Reshape", {"x": made.outputs[0]}, {"shape": [-1, width]}, f"{made.name}.rows"))
    stands_for = [(found.joined, nodes[-1].outputs[0])]
    for part, present in zip((found.k, found.v), made.outputs[1:], strict=True):
        whole = _put_together(found, part)
        if whole is not None:
            stands_for.append((whole, present))
    return Replacement(nodes, stands_for, before=found.last)


def _name(found: _Attention) -> str:
    text = found.softmax.name or str(found.softmax.outputs[0].name)
    return text.strip("/").replace("/Softmax", "").replace("/", ".")


ATTENTION = Rule(
    "attention", frozenset({"Softmax"}), _match, _check, _replace, parts=lambda found: found.parts
)
