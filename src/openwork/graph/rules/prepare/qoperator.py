"""The QOperator format into Q/DQ: QLinearMatMul means dequantize, multiply, quantize."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import constant, needed
from openwork.graph.rewrite import Replacement, Rule

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def _match(node: ir.Node) -> ir.Node | None:
    return node if len(node.inputs) == 8 else None


def _check(node: ir.Node) -> str | None:
    weight, scale = constant(needed(node, 3)), constant(needed(node, 4))
    if scale is None or constant(needed(node, 1)) is None:
        return "its scales are not constants"
    if scale.size > 1 and (weight is None or weight.ndim != 2 or scale.ndim != 1):
        return (
            "the scales of its second operand are neither one number nor one per column of a constant matrix"
        )
    return None


def _dequantize(node: ir.Node, first: int) -> ir.Node:
    value, scale, point = (needed(node, first + index) for index in range(3))
    made = ir.Node("", "DequantizeLinear", [value, scale, point], {"axis": ir.AttrInt64("axis", 1)})
    made.outputs[0].shape, made.outputs[0].type = value.shape, FLOAT
    return made


def _replace(node: ir.Node) -> Replacement:
    left, right = _dequantize(node, 0), _dequantize(node, 3)
    old = node.outputs[0]
    matmul = ir.Node("", "MatMul", [left.outputs[0], right.outputs[0]], name=f"{node.name}/MatMul")
    matmul.outputs[0].shape, matmul.outputs[0].type = old.shape, FLOAT
    quantize = ir.Node(
        "", "QuantizeLinear", [matmul.outputs[0], needed(node, 6), needed(node, 7)], name=f"{node.name}/Q"
    )
    quantize.outputs[0].shape, quantize.outputs[0].type = old.shape, old.type
    return Replacement([left, right, matmul, quantize], [(old, quantize.outputs[0])])


EXPAND_QLINEAR_MATMUL = Rule("expand QLinearMatMul", frozenset({"QLinearMatMul"}), _match, _check, _replace)
