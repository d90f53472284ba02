"""A border of one number around images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from openwork.engine.operators.windows import LARGEST_WINDOW
from openwork.graph.layout import IMAGE_AXES, around
from openwork.graph.model import attributes, constant, dims, needed, operand, scalar
from openwork.graph.rewrite import Replacement, Rule


@dataclass(frozen=True)
class _Pad:
    node: ir.Node
    values: dict[str, Any] | str


def _sizes(node: ir.Node, rank: int) -> list[int] | str:
    """The pads of all axes, all begins and then all ends."""
    given = operand(node, 1)
    array = constant(given)
    if given is None:
        pads = attributes(node).get("pads")
    else:
        pads = None if array is None else array.astype(np.int64).reshape(-1).tolist()
    if pads is None:
        return "its pads are not constant"
    over = constant(operand(node, 3))
    if operand(node, 3) is None:
        return list(pads)
    if over is None:
        return "the axes that it pads are not constant"
    whole = [0] * 2 * rank
    axes = [int(axis) % rank for axis in over.reshape(-1)]
    for place, axis in enumerate(axes):
        whole[axis], whole[rank + axis] = pads[place], pads[len(axes) + place]
    return whole


def _match(node: ir.Node) -> _Pad | None:
    shape, mode = dims(needed(node, 0)), attributes(node).get("mode", "constant")
    if shape is None or len(shape) != IMAGE_AXES:
        return None
    pads = _sizes(node, len(shape))
    if isinstance(pads, str):
        return _Pad(node, pads)
    if mode != "constant":
        return _Pad(node, f"its border is of the mode {mode}; one of a constant number is run")
    value = attributes(node).get("value", 0.0) if operand(node, 2) is None else scalar(operand(node, 2))
    if value is None or not np.isfinite(value):
        return _Pad(node, "the number of its border is not constant and finite")
    begin, end = pads[:IMAGE_AXES], pads[IMAGE_AXES:]
    if begin[0] or end[0] or any(not 0 <= size <= LARGEST_WINDOW for size in pads):
        return _Pad(node, f"its pads {pads} cut something off, or are those of the batch")
    last = [*begin[2:], begin[1], *end[2:], end[1]]
    return _Pad(node, {"pads": last, "value": float(value)})


def _check(found: _Pad) -> str | None:
    if isinstance(found.values, str):
        return found.values
    x = needed(found.node, 0)
    if x.dtype != ir.DataType.FLOAT or not isinstance((dims(x) or (None, None))[1], int):
        return "its input is not float32 with a known number of channels"
    return None


def _replace(found: _Pad) -> Replacement:
    node = found.node
    assert not isinstance(found.values, str)
    nodes = around("Pad", {"x": needed(node, 0)}, found.values, node.name or "", node.outputs[0])
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


PAD = Rule("pad", frozenset({"Pad"}), _match, _check, _replace)
