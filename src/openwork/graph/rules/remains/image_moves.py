"""Moves of channels and changes of shape that only rename: of single pixels, and one after another."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.layout import FIRST, LAST
from openwork.graph.model import attributes, dims, native_producer
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.slots import filled
from openwork.graph.views import reshaped, target_shape


def _match_pixel(node: ir.Node) -> ir.Node | None:
    """A move that leaves every element at its place: of one channel or of one pixel."""
    shape = dims(filled(node, "x"))
    if shape is None or attributes(node):
        return None
    _, *sizes = shape
    channels, pixels = (sizes[0], sizes[1:]) if node.op_type == LAST else (sizes[-1], sizes[:-1])
    return node if channels == 1 or pixels == [1, 1] else None


def _reshaped(x: ir.Value, old: ir.Value, name: str) -> Replacement:
    made = reshaped(x, dims(old) or (), name)
    return Replacement([made], [(old, made.outputs[0])])


def _check_pixel(node: ir.Node) -> str | None:
    target = target_shape(dims(filled(node, "x")), dims(node.outputs[0]))
    return target if isinstance(target, str) else None


def _replace_pixel(node: ir.Node) -> Replacement:
    return _reshaped(filled(node, "x"), node.outputs[0], node.name or "")


PIXEL = Rule(
    "move of single channels as reshape",
    frozenset({FIRST, LAST}),
    _match_pixel,
    _check_pixel,
    _replace_pixel,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Twice:
    node: ir.Node
    x: ir.Value


def _match_twice(node: ir.Node) -> _Twice | None:
    """A Reshape of a Reshape, or one that changes nothing."""
    x = filled(node, "x")
    first = native_producer(x, "Reshape")
    if first is not None:
        return _Twice(node, filled(first, "x"))
    return _Twice(node, x) if dims(x) == dims(node.outputs[0]) and None not in (dims(x) or (None,)) else None


def _check_twice(found: _Twice) -> str | None:
    old = found.node.outputs[0]
    if dims(found.x) == dims(old):
        fixed = found.x.producer() is None or found.x.is_graph_output()
        return (
            "it makes an output of the graph out of an input or another output"
            if (old.is_graph_output() and fixed)
            else None
        )
    target = target_shape(dims(found.x), dims(old))
    return target if isinstance(target, str) else None


def _replace_twice(found: _Twice) -> Replacement:
    old = found.node.outputs[0]
    if dims(found.x) == dims(old):
        return Replacement((), [(old, found.x)])
    return _reshaped(found.x, old, found.node.name or "")


RESHAPE_AGAIN = Rule(
    "reshape of a reshape", frozenset({"Reshape"}), _match_twice, _check_twice, _replace_twice, domain=DOMAIN
)
