"""QuantizeLinear and DequantizeLinear of activations into Quantize and Dequantize, the roundings as they are.

Nothing is left out here: a quantizer means its rounding and both clamps. What reads the integers (a product,
a residual) takes them later; `relaxed.py` leaves roundings out where the caller asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.model import (
    attributes,
    constant,
    consumers,
    is_onnx,
    make,
    native_producer,
    needed,
    operand,
    scalar,
)
from openwork.graph.rewrite import Replacement, Rule, precedes

SIGNED_OFFSET = 128
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
LARGEST_SCALE = 2.0**119
"""Between them quantizing what was dequantized gives the same integer: docs/arithmetic.md."""


@dataclass(frozen=True)
class Quantizer:
    """scale and zero point of an activation, and whether its integers are signed."""

    scale: float
    zero_point: int
    signed: bool

    @property
    def unsigned_zero_point(self) -> int:
        """The zero point after 128 is added to signed bytes."""
        return self.zero_point + (SIGNED_OFFSET if self.signed else 0)


def read_quantizer(node: ir.Node) -> Quantizer | str:
    """The quantizer of an activation's QuantizeLinear or DequantizeLinear, or why it has no native form."""
    scale = scalar(operand(node, 1))
    if scale is None:
        return "its scale is not one constant number (activations are quantized per tensor)"
    point = operand(node, 2)
    zero_point = 0.0 if point is None else scalar(point)
    if zero_point is None:
        return "its zero point is not one constant number (activations are quantized per tensor)"
    integer = node.outputs[0] if node.op_type == "QuantizeLinear" else needed(node, 0)
    if integer.dtype not in (ir.DataType.UINT8, ir.DataType.INT8):
        found = integer.dtype.name if integer.dtype else "of unknown type"
        return f"its integers are {found}; only UINT8 and INT8 are run"
    if needed(node, 1).dtype != ir.DataType.FLOAT:
        return "its scale is not float32"
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        return f"its scale is {scale}, which is not a normal number of at most 2^119"
    return Quantizer(scale, int(zero_point), integer.dtype == ir.DataType.INT8)


@dataclass(frozen=True)
class _Quantized:
    """A QuantizeLinear, and the DequantizeLinear that read it, each with its own scale and zero point."""

    node: ir.Node
    quantizer: Quantizer | str
    readers: tuple[tuple[ir.Node, Quantizer], ...]


def _match(node: ir.Node) -> _Quantized | None:
    if constant(node.inputs[0]) is not None:
        return None
    readers = []
    for reader in consumers(node.outputs[0]):
        found = read_quantizer(reader) if is_onnx(reader, "DequantizeLinear") else ""
        if isinstance(found, Quantizer):
            readers.append((reader, found))
    return _Quantized(node, read_quantizer(node), tuple(readers))


def _check(found: _Quantized) -> str | None:
    if isinstance(found.quantizer, str):
        return found.quantizer
    node = found.node
    if needed(node, 0).dtype not in (None, ir.DataType.FLOAT):
        return "its input is not float32"
    if not found.quantizer.signed or found.readers:
        return None
    if node.outputs[0].is_graph_output():
        return "its signed integers are an output of the graph"
    others = ", ".join(sorted({reader.op_type for reader in consumers(node.outputs[0])}))
    return f"its signed integers are read by {others}, not by a DequantizeLinear per tensor"


def _dequantize(value: ir.Value, reader: ir.Node, quantizer: Quantizer) -> ir.Node:
    values = {"x_scale": quantizer.scale, "x_zero_point": quantizer.unsigned_zero_point}
    return make("Dequantize", [value], values, reader.name or "")


def _replace(found: _Quantized) -> Replacement:
    """Signed integers move by 128 for those readers that can move with them; for others the node stays."""
    quantizer = found.quantizer
    assert isinstance(quantizer, Quantizer)
    values = {"y_scale": quantizer.scale, "y_zero_point": quantizer.unsigned_zero_point}
    made = make("Quantize", [needed(found.node, 0)], values, found.node.name or "")
    read = [_dequantize(made.outputs[0], reader, own) for reader, own in found.readers]
    moved = [(old.outputs[0], new.outputs[0]) for (old, _), new in zip(found.readers, read, strict=True)]
    if not quantizer.signed:
        moved.append((found.node.outputs[0], made.outputs[0]))
    return Replacement([made, *read], moved)


QUANTIZE = Rule("quantize", frozenset({"QuantizeLinear"}), _match, _check, _replace)


def _match_dequantize(node: ir.Node) -> ir.Node | None:
    return node if constant(needed(node, 0)) is None else None


def _check_dequantize(node: ir.Node) -> str | None:
    quantizer = read_quantizer(node)
    if isinstance(quantizer, str):
        return quantizer
    return "its signed integers are made by no native Quantize" if quantizer.signed else None


def _replace_dequantize(node: ir.Node) -> Replacement:
    quantizer = read_quantizer(node)
    assert isinstance(quantizer, Quantizer)
    made = _dequantize(needed(node, 0), node, quantizer)
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


DEQUANTIZE = Rule(
    "dequantize",
    frozenset({"DequantizeLinear"}),
    _match_dequantize,
    _check_dequantize,
    _replace_dequantize,
)


def _match_shared(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """An earlier node of the same kind on the same value with the same scale and zero point."""
    for other in consumers(needed(node, 0)):
        if other is node:
            return None
        if native_producer(other.outputs[0], node.op_type) and attributes(other) == attributes(node):
            return node, other
    return None


def _check_shared(found: tuple[ir.Node, ir.Node]) -> str | None:
    node, other = found
    if node.outputs[0].is_graph_output():
        return f"its {'integers are' if node.op_type == 'Quantize' else 'result is'} an output of the graph"
    return None if precedes(other, node) else f"the equal {node.op_type} stands after it"


def _replace_shared(found: tuple[ir.Node, ir.Node]) -> Replacement:
    node, other = found
    return Replacement((), [(node.outputs[0], other.outputs[0])])


SHARE_QUANTIZE = Rule(
    "share quantize",
    frozenset({"Quantize", "Dequantize"}),
    _match_shared,
    _check_shared,
    _replace_shared,
    domain=DOMAIN,
)
