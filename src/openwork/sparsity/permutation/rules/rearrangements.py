"""Operators that only move elements: they are run on the atoms themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from openwork.sparsity.permutation.values import Source, Value, compressed, first_reason, written_out
from openwork.sparsity.permutation.walk import Known, Rule, Walk, argument, name_of, rule, shape_of

RULES: dict[str, Rule] = {}

_MOVES = [
    "view",
    "reshape",
    "_unsafe_view",
    "permute",
    "transpose",
    "t",
    "numpy_T",
    "movedim",
    "swapaxes",
    "select",
    "slice",
    "narrow",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
    "cat",
    "concat",
    "stack",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "repeat",
    "flip",
    "roll",
    "repeat_interleave",
    "pixel_shuffle",
    "channel_shuffle",
    "index_select",
    "tile",
    "ravel",
    "view_as",
    "reshape_as",
    "tensor_split",
]


@rule(RULES, "getitem", "<built-in function getitem>")
def item(walk: Walk, node: fx.Node) -> Known:
    found = walk.known.get(node.args[0])  # type: ignore[arg-type]
    return found[node.args[1]] if isinstance(found, list) else None  # type: ignore[index]


@rule(RULES, *_MOVES)
def move(walk: Walk, node: fx.Node) -> Known:
    source = walk.source(node.all_input_nodes[0])
    if source is not None and (part := _part_of(source, node)) is not None:
        return part
    values = {each: walk.value(each) for each in node.all_input_nodes}
    if all(value.atoms is None for value in values.values()):
        outputs = node.meta.get("val")
        reason = first_reason(values.values())
        if isinstance(outputs, list | tuple):
            return [Value(None, tuple(o.shape), reason) for o in outputs]
        return Value(None, shape_of(node), reason)
    written = {each: written_out(value, shape_of(each)) for each, value in values.items()}
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: written[each])
    # Atoms that were expanded have no strides for a view.
    views = name_of(node) in ("view", "_unsafe_view")
    operator: Any = torch.reshape if views else node.target
    result = operator(*args, **kwargs)
    return [compressed(part) for part in result] if isinstance(result, list | tuple) else compressed(result)


def _part_of(source: Source, node: fx.Node) -> Known:
    """A stored matrix stays one where it is transposed or parted along its first axis."""
    name = name_of(node)
    if len(source.shape) == 2 and source.rows is None and name in ("t", "numpy_T", "transpose", "permute"):
        return replace(source, swapped=not source.swapped)
    if name not in ("split", "split_with_sizes", "chunk") or source.swapped or len(source.shape) < 2:
        return None
    if argument(node, 2, "dim", 0) != 0 or source.rows is not None:
        return None
    parts, start = [], 0
    for output in node.meta["val"]:
        parts.append(replace(source, rows=range(start, start + output.shape[0])))
        start += output.shape[0]
    return parts
