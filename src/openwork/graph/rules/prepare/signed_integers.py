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

KEEPS_NUMBERS = frozenset({"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice"})
"""Operators that give some of the numbers that they read, whatever rising function these go through."""


@dataclass(frozen=True)
class _Kept:
    node: ir.Node
    readers: tuple[ir.Node, ...]


def _match(node: ir.Node) -> _Kept | None:
    x = needed(node, 0)
    if x.dtype != ir.DataType.INT8 or constant(x) is not None or len(node.outputs) != 1:
        return None
    readers = tuple(consumers(node.outputs[0]))
    alone = not node.outputs[0].is_graph_output() and all(is_onnx(r, "DequantizeLinear") for r in readers)
    return _Kept(node, readers) if readers and alone else None


def _check(found: _Kept) -> str | None:
    quantizers = [read_quantizer(reader) for reader in found.readers]
    reason = next((each for each in quantizers if isinstance(each, str)), None)
    if reason is not None:
        return reason
    return None if len(set(quantizers)) == 1 else "its readers dequantize its integers in different ways"


def _replace(found: _Kept) -> Replacement:
    node, (first, *_) = found.node, found.readers
    x, old = needed(node, 0), first.outputs[0]
    inside = ir.Node("", "DequantizeLinear", [x, *first.inputs[1:]], first.attributes, name=f"{node.name}.D")
    inside.outputs[0].shape, inside.outputs[0].type = x.shape, ir.TensorType(ir.DataType.FLOAT)
    made = ir.Node("", node.op_type, [inside.outputs[0], *node.inputs[1:]], node.attributes, name=node.name)
    made.outputs[0].shape, made.outputs[0].type = old.shape, ir.TensorType(ir.DataType.FLOAT)
    return Replacement([inside, made], [(reader.outputs[0], made.outputs[0]) for reader in found.readers])


KEEP_SIGNED = Rule("dequantize before what keeps signed integers", KEEPS_NUMBERS, _match, _check, _replace)
