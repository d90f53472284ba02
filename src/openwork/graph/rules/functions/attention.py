"""Scaled dot-product attention, from the split of the heads to their join, into Attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import KeyMask
from openwork.graph.model import (
    Array,
    ModelError,
    constant,
    dims,
    graph_of,
    make,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.probe import cone, samples, sized
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.round_trip import Grid, round_trip
from openwork.graph.rules.functions.attention_scores import read_scores
from openwork.graph.rules.functions.native_mask import native_mask
from openwork.graph.scaling import scaling_of

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten")


@dataclass(frozen=True)
class _Operand:
    """One of q, k, v: the [B, L, H] value it comes from, the factor on the way, what is read."""

    source: ir.Value
    scale: float
    used: ir.Value


@dataclass(frozen=True, kw_only=True)
class _Attention:
    softmax: ir.Node
    q: _Operand
    k: _Operand
    v: _Operand
    scale: float
    heads: int
    result: ir.Value
    joined: ir.Value
    mask: KeyMask | None
    roundings: dict[str, float | int] = field(default_factory=dict)
    reason: str | None = None
    parts: tuple[ir.Node, ...] = ()


def _read_operand(used: ir.Value) -> _Operand:
    """Upwards through moved axes and scales to the first value that is neither."""
    value, scale = used, 1.0
    while True:
        node = value.producer()
        if producer(value, *MOVES) is not None and node is not None:
            value = needed(node, 0)
        elif (
            node is not None
            and producer(value, "Mul", "Div") is not None
            and (split := scaling_of(node)) is not None
        ):
            value, scale = split[0], scale * split[1]
        else:
            return _Operand(value, scale, used)


def _read_result(value: ir.Value) -> ir.Value:
    """Downwards through moved axes to the last value that only moves."""
    while (reader := only_consumer(value)) is not None and producer(reader.outputs[0], *MOVES) is not None:
        if reader.inputs[0] is not value:
            break
        value = reader.outputs[0]
        shape = dims(value)
        if shape is not None and len(shape) == 3:
            break
    return value


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
    q, k = (_read_operand(needed(scores.product, index)) for index in (0, 1))
    v = _read_operand(needed(mix, 1))
    shape = dims(mix.outputs[0])
    heads = shape[1] if shape is not None and len(shape) == 4 else None
    mask = scores.masks[0] if scores.masks else None
    reason = "it has two different key masks" if len(set(scores.masks)) > 1 else None
    factor = q.scale * k.scale
    scale = scores.scale * factor
    if scores.rounding is not None and not scale > 0:
        return _refused(softmax, parts, "its scores are rounded, and scaled by a number that is not positive")
    roundings = _roundings(scores.rounding_before(factor), rounding)
    joined = _read_result(mix.outputs[0])
    if not isinstance(heads, int):
        return _refused(softmax, parts, "its heads are not a fixed second dimension of four")
    return _Attention(
        softmax=softmax,
        q=q,
        k=k,
        v=v,
        scale=scale,
        heads=heads,
        result=mix.outputs[0],
        joined=joined,
        mask=mask,
        roundings=roundings,
        reason=reason,
        parts=parts,
    )


def _refused(softmax: ir.Node, parts: tuple[ir.Node, ...], reason: str | None) -> _Attention:
    mix = parts[-1]
    nothing, result = _Operand(needed(mix, 0), 1.0, needed(mix, 1)), mix.outputs[0]
    return _Attention(
        softmax=softmax,
        q=nothing,
        k=nothing,
        v=nothing,
        scale=1.0,
        heads=1,
        result=result,
        joined=result,
        mask=None,
        reason=reason,
        parts=parts,
    )


def _split_heads(x: Array, heads: int) -> Array:
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(0, 2, 1, 3)


def _split_keys(x: Array, heads: int) -> Array:
    return _split_heads(x, heads).swapaxes(2, 3)


def _join_heads(x: Array, heads: int) -> Array:
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def _moves_as(
    source: ir.Value, used: ir.Value, scale: float, heads: int, expected: Callable[[Array, int], Array]
) -> bool:
    """Whether the nodes from source to used move the axes as `expected` does, and scale by `scale`."""
    found = cone(used, frozenset({source}))
    if found is None or dims(source) is None or found.sources != {source}:
        return False
    try:
        for probe in samples(found):
            actual_shape = sized(source, probe.sizes)
            x = np.arange(1, np.prod(actual_shape) + 1, dtype=np.float32).reshape(actual_shape)
            y, wanted = found.evaluate(probe.sizes, {source: x}), expected(x, heads) * np.float32(scale)
            # The numbers 1, 2, .. differ by more than 1 / count relatively; two roundings stay far below
            # that.
            if y.shape != wanted.shape or not np.allclose(y, wanted, rtol=0.25 / x.size, atol=0):
                return False
    except (ModelError, KeyError):
        return False
    return True


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
    if states is None or len(states) != 3 or not isinstance(states[2], int) or states[2] % found.heads:
        return (
            "its queries do not come from one value [batch, length, channels] of a known number of channels"
        )
    for name, part in (("keys", found.k), ("values", found.v)):
        if dims(part.source) != states:
            return (
                f"its {name} come from {dims(part.source)}, its queries from {states}; "
                "only self-attention is run"
            )
    if found.v.scale != 1.0:
        return "its values are scaled"
    if found.mask is not None and _mask_disagrees(found.mask, states):
        return f"its mask is {list(found.mask.shape)}, its queries are {list(states)}"
    return _check_moves(found)


def _mask_disagrees(mask: KeyMask, states: tuple[object, ...]) -> bool:
    """Whether mask and queries are of other sizes, or one mask is for a batch of any size."""
    pairs = list(zip(mask.shape, states, strict=False))
    differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    return differ or any(a == 1 and b != 1 for a, b in pairs)


def _check_moves(found: _Attention) -> str | None:
    heads = found.heads
    parts = (
        ("queries", found.q, _split_heads),
        ("keys", found.k, _split_keys),
        ("values", found.v, _split_heads),
    )
    for name, part, expected in parts:
        if not _moves_as(part.source, part.used, part.scale, heads, expected):
            return f"its {name} are not split into {heads} heads as [batch, heads, length, size]"
    if not _moves_as(found.result, found.joined, 1.0, heads, _join_heads):
        return "its result is not joined into [batch, length, channels]"
    return None


def _replace(found: _Attention) -> Replacement:
    values = {"heads": found.heads, "scale": found.scale, **found.roundings}
    last = found.joined.producer() or found.softmax
    mask, nodes = None, list[ir.Node]()
    if found.mask is not None:
        mask, nodes = native_mask(home(found.softmax), found.mask, last)
    inputs = {"q": found.q.source, "k": found.k.source, "v": found.v.source, "mask": mask}
    made = make("Attention", inputs, values, _name(found))
    return Replacement([*nodes, made], [(found.joined, made.outputs[0])], before=last)


def _name(found: _Attention) -> str:
    text = found.softmax.name or str(found.softmax.outputs[0].name)
    return text.strip("/").replace("/Softmax", "").replace("/", ".")


ATTENTION = Rule(
    "attention", frozenset({"Softmax"}), _match, _check, _replace, parts=lambda found: found.parts
)
