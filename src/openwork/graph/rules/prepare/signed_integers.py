"""Signed integers through an operator that keeps numbers: dequantized in front of it and not behind it.

Files of operators on integers (QLinear*) pool and reshape integers as they are; native steps hold them
unsigned, which only their quantizers can change.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from openwork.graph.model import constant, consumers, is_onnx, needed
from openwork.graph.rewrite import Replacement, Rule
from openwork.graph.rules.prepare.quantizers import read_quantizer

KEEPS_NUMBERS = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"}
)
"""Operators that give some of the numbers that they read, whatever rising function these go through."""


@dataclass(frozen=True)
class _Kept:
    node: ir.Node
    readers: tuple[ir.Node, ...]


def _match(node: ir.Node) -> _Kept | None:
    x = needed(node, 0)
    if x.dtype != ir.DataType.INT8 or constant(x) is not None:
        return None
    # The second output of a MaxPool holds places and not numbers.
    if len(node.outputs) != 1 and node.op_type != "Split":
        return None
    readers = tuple(reader for made in node.outputs for reader in consumers(made))
    inside = not any(made.is_graph_output() for made in node.outputs)
    alone = inside and all(is_onnx(reader, "DequantizeLinear") for reader in readers)
    return _Kept(node, readers) if readers and alone else None


def _check(found: _Kept) -> str | None:
    quantizers = [read_quantizer(reader) for reader in found.readers]
    reason = next((each for each in quantizers if isinstance(each, str)), None)
    if reason is not None:
        return reason
    return None if len(set(quantizers)) == 1 else "its readers dequantize its integers in different ways"


def _replace(found: _Kept) -> Replacement:
    node, (first, *_) = found.node, found.readers
    x, floats = needed(node, 0), ir.TensorType(ir.DataType.FLOAT)
    inside = ir.Node("", "DequantizeLinear", [x, *first.inputs[1:]], first.attributes, name=f"{node.name}.D")
    inside.outputs[0].shape, inside.outputs[0].type = x.shape, floats
    outputs = [ir.Value(shape=old.shape, type=floats) for old in node.outputs]
    read = [inside.outputs[0], *node.inputs[1:]]
    made = ir.Node("", node.op_type, read, node.attributes, outputs=outputs, name=node.name)
    values = [
        (reader.outputs[0], new)
        for old, new in zip(node.outputs, outputs, strict=True)
        for reader in consumers(old)
    ]
    return Replacement([inside, made], values)


KEEP_SIGNED = Rule("dequantize before what keeps signed integers", KEEPS_NUMBERS, _match, _check, _replace)
