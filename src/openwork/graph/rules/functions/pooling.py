"""Pools over images: MaxPool, AveragePool, and those over all pixels, ReduceMean and ReduceMax among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from openwork.engine.operators.windows import axes
from openwork.graph.layout import IMAGE_AXES, around
from openwork.graph.model import attributes, constant, dims, needed, operand
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.products.windows import read_window

SPATIAL = (2, 3)


@dataclass(frozen=True)
class _Pool:
    """A node that is the pool `op_type` of x with these attributes, or why it is none."""

    node: ir.Node
    op_type: str
    values: dict[str, Any] | str


def _check(found: _Pool) -> str | None:
    x = needed(found.node, 0)
    if isinstance(found.values, str):
        return found.values
    if x.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        return "its input is neither float32 nor uint8"
    shape = dims(x)
    if shape is None or len(shape) != IMAGE_AXES or not isinstance(shape[1], int):
        return "its input is no image with a known number of channels"
    if x.dtype != ir.DataType.FLOAT and found.op_type not in ("MaxPool", "GlobalMaxPool"):
        return "its input is not float32"
    return None


def _replace(found: _Pool) -> Replacement:
    node = found.node
    assert not isinstance(found.values, str)
    nodes = around(found.op_type, {"x": needed(node, 0)}, found.values, node.name or "", node.outputs[0])
    return Replacement(nodes, [(node.outputs[0], nodes[-1].outputs[0])])


def _match_window(node: ir.Node) -> _Pool:
    given = attributes(node)
    window = read_window(node, given.get("kernel_shape", ()))
    if isinstance(window, str):
        return _Pool(node, node.op_type, window)
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return _Pool(node, node.op_type, "its second output, the places of the largest, is read")
    overhang = _overhang(node, window) if given.get("ceil_mode", 0) else [0, 0]
    if isinstance(overhang, str):
        return _Pool(node, node.op_type, overhang)
    pads = window["pads"]
    window["pads"] = [*pads[:2], *(pad + over for pad, over in zip(pads[2:], overhang, strict=True))]
    if node.op_type == "AveragePool":
        window["count_include_pad"] = int(given.get("count_include_pad", 0))
        if any(overhang):
            window["overhang"] = overhang
    return _Pool(node, node.op_type, window)


def _overhang(node: ir.Node, window: dict[str, Any]) -> list[int] | str:
    """Pixels beyond the pads that the last windows of ceil_mode hang over, along height and width.

    ONNX leaves a window out that would begin in the padding behind the image.
    """
    found = []
    shape = dims(needed(node, 0)) or ()
    for axis, size in zip(axes(window), shape[2:], strict=False):
        if axis.stride == 1:
            found.append(0)
            continue
        if not isinstance(size, int):
            return "its windows are counted up (ceil_mode) along a free size"
        last = -(-(size + axis.before + axis.after - axis.reach) // axis.stride)
        last -= last * axis.stride >= size + axis.before
        found.append(max(0, last * axis.stride + axis.reach - (size + axis.before + axis.after)))
    return found


def _match_global(node: ir.Node) -> _Pool:
    return _Pool(node, node.op_type, {})


_GLOBAL = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def _match_reduce(node: ir.Node) -> _Pool | None:
    """Over height and width of images that keep their axes; without them the shape is changed behind it."""
    shape, given = dims(needed(node, 0)), attributes(node)
    listed = constant(operand(node, 1))
    over = given.get("axes") if listed is None else listed.reshape(-1).tolist()
    if shape is None or len(shape) != IMAGE_AXES or over is None:
        return None
    if sorted(axis % IMAGE_AXES for axis in over) != list(SPATIAL) or not given.get("keepdims", 1):
        return None
    return _Pool(node, _GLOBAL[node.op_type], {})


POOL = Rule("pool", frozenset({"MaxPool", "AveragePool"}), _match_window, _check, _replace)
GLOBAL_POOL = Rule(
    "pool over all pixels", frozenset({"GlobalAveragePool", "GlobalMaxPool"}), _match_global, _check, _replace
)
REDUCED_IMAGE = Rule("mean over all pixels", frozenset(_GLOBAL), _match_reduce, _check, _replace)
