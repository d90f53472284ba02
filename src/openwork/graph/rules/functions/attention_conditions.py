"""What keeps an attention of a graph from being one of ours."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import Dims, dims, graph_of
from openwork.graph.probe import EQUAL_SIZES
from openwork.graph.rewrite import precedes
from openwork.graph.rules.functions.attention_bias import is_infinite, refused_bias
from openwork.graph.rules.functions.attention_found import FoundAttention, put_together, without_nan_guard
from openwork.graph.rules.functions.attention_operands import (
    Operand,
    join_heads,
    join_rows,
    moves_as,
    split_heads,
    splits,
    way_from,
)


def _default_axis(softmax: ir.Node) -> int:
    """Before opset 13 a Softmax without an axis ran over all dimensions from the second on."""
    return -1 if int(graph_of(softmax).opset_imports.get("", 13)) >= 13 else 1


def check_attention(found: FoundAttention) -> str | None:
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


def _check_keys(found: FoundAttention, states: Dims) -> str | None:
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


def _read_too_soon(found: FoundAttention, part: Operand) -> str | None:
    """Why all keys cannot be what the attention puts together: a node before it reads them."""
    whole = put_together(found, part)
    if whole is None:
        return None
    own = {*found.parts, *way_from(whole, part.used)}
    others = [use.node for use in whole.uses() if use.node not in own]
    if any(not precedes(found.last, node) for node in others):
        return "its keys with those of the past are read before it"
    return None


def _same_batch(found: FoundAttention, shape: Dims, states: Dims) -> bool:
    equal = graph_of(found.softmax).meta.get(EQUAL_SIZES, {})
    return bool(equal.get(shape[0], shape[0]) == equal.get(states[0], states[0]))


def _check_mask(found: FoundAttention, states: Dims) -> str | None:
    """Whether mask and keys are of other sizes, or one mask is for a batch of any size."""
    bias = found.scores.bias
    if bias is not None:
        refused = refused_bias(bias, found.heads)
        if refused is None and without_nan_guard(found.softmax) is not found.softmax.outputs[0]:
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


def _check_moves(found: FoundAttention) -> str | None:
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
