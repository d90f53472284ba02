"""Scaled dot-product attention, from the split of the heads to their join, into Attention."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import dims, make, needed, producer
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.functions.attention_bias import bias_value
from openwork.graph.rules.functions.attention_conditions import check_attention
from openwork.graph.rules.functions.attention_found import FoundAttention, match_attention, put_together
from openwork.graph.rules.functions.native_mask import native_mask


def _side_by_side(found: FoundAttention) -> ir.Value | None:
    """The one value that is split into queries, keys and values; None where they are values of their own."""
    sources = [part.source for part in (found.q, found.k, found.v)]
    split = producer(sources[0], "Split")
    if split is None or list(split.outputs) != sources:
        return None
    return needed(split, 0) if split.attributes.get_int("axis", 0) in (-1, 2) else None


def _inputs(found: FoundAttention) -> dict[str, ir.Value | None]:
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


def _replace(found: FoundAttention) -> Replacement:
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
        whole = put_together(found, part)
        if whole is not None:
            stands_for.append((whole, present))
    return Replacement(nodes, stands_for, before=found.last)


def _name(found: FoundAttention) -> str:
    text = found.softmax.name or str(found.softmax.outputs[0].name)
    return text.strip("/").replace("/Softmax", "").replace("/", ".")


ATTENTION = Rule(
    "attention",
    frozenset({"Softmax"}),
    match_attention,
    check_attention,
    _replace,
    parts=lambda found: found.parts,
)
