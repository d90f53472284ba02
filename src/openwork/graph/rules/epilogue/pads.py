"""A border goes into the convolution that reads it: as padding, which holds zeros, or their integer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.engine.operators.windows import LARGEST_WINDOW
from openwork.graph.model import attributes, lone_native_producer, native_producer, needed
from openwork.graph.numerics.binary32 import quantize
from openwork.graph.rewrite import Replacement, Rule, never
from openwork.graph.slots import filled, rebuilt


@dataclass(frozen=True)
class _Padded:
    """A node that reads a border, which nothing else does."""

    node: ir.Node
    pad: ir.Node


def _lone_pad(node: ir.Node) -> _Padded | None:
    pad = lone_native_producer(needed(node, 0), "Pad")
    return None if pad is None else _Padded(node, pad)


def _replace_quantize(found: _Padded) -> Replacement:
    """Quantize, then pad with the integer of the border's number."""
    numbers = attributes(found.node)
    value = np.asarray(attributes(found.pad)["value"], np.float32)
    integer = int(quantize(value, numbers["y_scale"], numbers["y_zero_point"]))
    inner = rebuilt(found.node, {"x": filled(found.pad, "x")})
    made = rebuilt(found.pad, {"x": inner.outputs[0]}, value=float(integer))
    return Replacement([inner, made], [(found.node.outputs[0], made.outputs[0])])


QUANTIZE_BEFORE_PAD = Rule(
    "quantize before a border", frozenset({"Quantize"}), _lone_pad, never, _replace_quantize, domain=DOMAIN
)


@dataclass(frozen=True)
class _OfIntegers:
    pad: ir.Node
    dequantize: ir.Node
    integer: int


def _match_dequantized(node: ir.Node) -> _OfIntegers | None:
    """A border of a number that is one of an integer too."""
    made = native_producer(needed(node, 0), "Dequantize")
    if made is None:
        return None
    read, value = attributes(made), np.asarray(attributes(node)["value"], np.float32)
    integer = int(quantize(value, read["x_scale"], read["x_zero_point"]))
    back = np.float32(integer - read["x_zero_point"]) * np.float32(read["x_scale"])
    return _OfIntegers(node, made, integer) if back == value else None


def _replace_dequantized(found: _OfIntegers) -> Replacement:
    inner = rebuilt(found.pad, {"x": filled(found.dequantize, "x")}, value=float(found.integer))
    made = rebuilt(found.dequantize, {"x": inner.outputs[0]}, f"{found.pad.name}.D")
    return Replacement([inner, made], [(found.pad.outputs[0], made.outputs[0])])


DEQUANTIZE_BEHIND_PAD = Rule(
    "dequantize behind a border",
    frozenset({"Pad"}),
    _match_dequantized,
    never,
    _replace_dequantized,
    domain=DOMAIN,
)


def _check_conv(found: _Padded) -> str | None:
    border, own = attributes(found.pad), attributes(found.node)
    top, left, before, bottom, right, after = border["pads"]
    if before or after:
        return "its border adds channels"
    if border["value"] != own.get("x_zero_point", 0):
        return f"its border holds {border['value']:g}, which is not zero"
    pads = [a + b for a, b in zip(own["pads"], (top, left, bottom, right), strict=True)]
    return "its border is too wide" if max(pads) > LARGEST_WINDOW else None


def _replace_conv(found: _Padded) -> Replacement:
    top, left, _, bottom, right, _ = attributes(found.pad)["pads"]
    own = attributes(found.node)["pads"]
    pads = [a + b for a, b in zip(own, (top, left, bottom, right), strict=True)]
    made = rebuilt(found.node, {"x": filled(found.pad, "x")}, pads=pads)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


PAD_INTO_CONV = Rule(
    "border into convolution", frozenset({"Conv"}), _lone_pad, _check_conv, _replace_conv, domain=DOMAIN
)
