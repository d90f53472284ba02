"""QuantizeLinear and DequantizeLinear of activations: into Quantize, shared, and away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN, OPERATORS
from openwork.graph.model import (
    add_initializer,
    attributes,
    constant,
    consumers,
    is_onnx,
    make,
    native_producer,
    needed,
    operand,
    producer,
    scalar,
)
from openwork.graph.operands import is_square, split_constant
from openwork.graph.rewrite import Replacement, Rule, home, never, precedes

SIGNED_OFFSET = 128
SCALE = OPERATORS["Quantize"].attributes[0]


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
    if not SCALE.accepts(scale):
        return f"its scale is {scale}; it must be {SCALE.expected}"
    return Quantizer(scale, int(zero_point), integer.dtype == ir.DataType.INT8)


@dataclass(frozen=True)
class _Quantized:
    node: ir.Node
    quantizer: Quantizer | str
    readers: tuple[ir.Node, ...]


def _match(node: ir.Node) -> _Quantized | None:
    if constant(node.inputs[0]) is not None:
        return None
    return _Quantized(node, read_quantizer(node), tuple(consumers(node.outputs[0])))


def _check(found: _Quantized) -> str | None:
    if isinstance(found.quantizer, str):
        return found.quantizer
    if needed(found.node, 0).dtype not in (None, ir.DataType.FLOAT):
        return "its input is not float32"
    if found.quantizer.signed and found.node.outputs[0].is_graph_output():
        return "its signed integers are an output of the graph"
    for reader in found.readers:
        if not is_onnx(reader, "DequantizeLinear"):
            return f"its integers are read by {reader.op_type}, not by DequantizeLinear"
        read = read_quantizer(reader)
        if read != found.quantizer:
            return "a DequantizeLinear reads it with another scale or zero point"
    return None


def _replace(found: _Quantized) -> Replacement:
    quantizer = found.quantizer
    assert isinstance(quantizer, Quantizer)
    values = {"y_scale": quantizer.scale, "y_zero_point": quantizer.unsigned_zero_point}
    made = make("Quantize", [needed(found.node, 0)], values, found.node.name or "")
    graph = home(found.node)
    if quantizer.signed or any(operand(reader, 2) is None for reader in found.readers):
        point = add_initializer(
            graph, f"{found.node.name}.zero_point", np.array(quantizer.unsigned_zero_point, np.uint8)
        )
        for reader in found.readers:
            reader.resize_inputs(3)
            reader.replace_input_with(2, point)
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


QUANTIZE = Rule("quantize", frozenset({"QuantizeLinear"}), _match, _check, _replace)


def _match_shared(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """An earlier Quantize of the same value with the same scale and zero point."""
    for other in consumers(needed(node, 0)):
        if other is node:
            return None
        if native_producer(other.outputs[0], "Quantize") and attributes(other) == attributes(node):
            return node, other
    return None


def _check_shared(found: tuple[ir.Node, ir.Node]) -> str | None:
    node, other = found
    if node.outputs[0].is_graph_output():
        return "its integers are an output of the graph"
    return None if precedes(other, node) else "the equal Quantize stands after it"


def _replace_shared(found: tuple[ir.Node, ir.Node]) -> Replacement:
    node, other = found
    return Replacement((), [(node.outputs[0], other.outputs[0])])


SHARE_QUANTIZE = Rule(
    "share quantize", frozenset({"Quantize"}), _match_shared, _check_shared, _replace_shared, domain=DOMAIN
)


@dataclass(frozen=True)
class _RoundTrip:
    node: ir.Node
    quantize: ir.Node


def _match_round_trip(node: ir.Node) -> _RoundTrip | None:
    quantize = native_producer(operand(node, 0), "Quantize")
    return None if quantize is None else _RoundTrip(node, quantize)


_NEVER_NEGATIVE = ("Relu", "Softmax", "Sigmoid", "Sqrt", "ReduceL2", "Exp", "Abs")
_KEEPS_SIGN = (
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Transpose",
    "Unsqueeze",
    "Squeeze",
    "Expand",
    "Add",
    "Mul",
    "Div",
)


def _non_negative(value: ir.Value, depth: int = 6) -> bool:
    """Whether no number in the value is negative, as far as its makers show."""
    array, node = constant(value), value.producer()
    if array is not None:
        return bool(np.all(array >= 0))
    if node is None or not is_onnx(node) or depth == 0:
        return False
    if node.op_type in _NEVER_NEGATIVE or is_square(value) is not None:
        return True
    if node.op_type == "Add" and _one_plus_bounded(node):
        return True
    read = node.inputs if node.op_type in ("Add", "Mul", "Div") else node.inputs[:1]
    return node.op_type in _KEEPS_SIGN and all(v is not None and _non_negative(v, depth - 1) for v in read)


def _one_plus_bounded(node: ir.Node) -> bool:
    """Whether an Add gives 1 + erf(x) or 1 + tanh(x): GELU's, which is 0 at the lowest."""
    split = split_constant(node)
    return split is not None and bool(np.all(split[1] >= 1)) and producer(split[0], "Erf", "Tanh") is not None


def _replace_round_trip(found: _RoundTrip) -> Replacement:
    """The float itself, which the rounding approximated; a zero point of 0 means max(x, 0)."""
    source, old = needed(found.quantize, 0), found.node.outputs[0]
    if attributes(found.quantize)["y_zero_point"] or _non_negative(source):
        if not old.is_graph_output():
            return Replacement((), [(old, source)])
        copy = ir.Node("", "Identity", [source], name=found.node.name)
    else:
        copy = ir.Node("", "Relu", [source], name=found.node.name)
    copy.outputs[0].shape, copy.outputs[0].type = source.shape, ir.TensorType(ir.DataType.FLOAT)
    return Replacement([copy], [(old, copy.outputs[0])])


DROP_ROUND_TRIP = Rule(
    "drop quantize-dequantize between float operators",
    frozenset({"DequantizeLinear"}),
    _match_round_trip,
    never,
    _replace_round_trip,
)
