"""The QOperator format into Q/DQ: QLinearConv means dequantize, convolve, quantize."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import constant, dims, needed, operand
from openwork.graph.qoperators import AXES_READ, FORMS, MICROSOFT, Form, form_of, reads_axes
from openwork.graph.rewrite import Replacement, Rule, home

FLOAT = ir.TensorType(ir.DataType.FLOAT)

SOFTMAX_BY_AXIS = 13
"""The opset from which on a softmax is one along its axis alone."""
OUTPUT_AXIS = {"MatMul": 1, "Gemm": 0, "Conv": 0}
"""Along which axis of its second operand a product's output channels lie."""


def _form(node: ir.Node) -> Form:
    found = form_of(node.domain, node.op_type, len(node.inputs))
    assert found is not None
    return found


def _match(node: ir.Node) -> ir.Node | None:
    form = _form(node)
    return node if len(node.inputs) > max((*form.operands, 0)) + 1 else None


def _check(node: ir.Node) -> str | None:
    form = _form(node)
    if operand(node, form.output) is None:
        return "it gives floats and not integers"
    if node.attributes.get("channels_last") and node.attributes["channels_last"].as_int():
        return "its images stand channels last"
    if form.float_op == "Softmax" and _is_over_many(node):
        return "it is a softmax over several axes together, as before opset 13"
    for first in form.operands:
        scale = constant(needed(node, first + 1))
        if scale is None:
            return "its scales are not constants"
        if scale.size > 1 and (first != form.weight or not _by_channel(node, form, scale.size)):
            return "the scales of an operand are neither one number nor one per output channel of a weight"
    return None


def _is_over_many(node: ir.Node) -> bool:
    """Whether a softmax takes all axes from its own on for one."""
    opset, axis, shape = (node.attributes.get("opset"), node.attributes.get("axis"), dims(needed(node, 0)))
    if opset is None or opset.as_int() >= SOFTMAX_BY_AXIS or axis is None:
        return False
    return shape is None or axis.as_int() % len(shape) != len(shape) - 1


def _by_channel(node: ir.Node, form: Form, count: int) -> bool:
    """Whether the weight is a constant with so many output channels."""
    weight = constant(needed(node, form.weight))
    return weight is not None and weight.ndim >= 2 and weight.shape[_axis(node, form)] == count


def _axis(node: ir.Node, form: Form) -> int:
    """The axis of the output channels of the weight."""
    if form.float_op == "Gemm" and not (node.attributes.get("transB") and node.attributes["transB"].as_int()):
        return 1
    return OUTPUT_AXIS.get(form.float_op, 1)


def _made(node: ir.Node, like: ir.Value, dtype: ir.TypeProtocol | None) -> ir.Node:
    node.outputs[0].shape, node.outputs[0].type = like.shape, dtype
    return node


def _dequantize(node: ir.Node, first: int, axis: int) -> ir.Node:
    value = needed(node, first)
    inputs = [value, needed(node, first + 1), operand(node, first + 2)]
    made = ir.Node("", "DequantizeLinear", inputs, {"axis": ir.AttrInt64("axis", axis)})
    return _made(made, value, FLOAT)


def _bias(node: ir.Node, form: Form) -> list[ir.Node]:
    """The INT32 bias, whose scale is that of the sums."""
    value = operand(node, form.bias) if form.bias >= 0 else None
    if value is None:
        return []
    x_scale, scale = (constant(needed(node, first + 1)) for first in form.operands)
    assert x_scale is not None
    assert scale is not None
    product = (np.float32(x_scale.reshape(())) * scale.reshape(-1)).astype(np.float32)
    held = product if product.size > 1 else product.reshape(())
    number = add_initializer(home(node), f"{node.name}.bias_scale", held)
    made = ir.Node("", "DequantizeLinear", [value, number], {"axis": ir.AttrInt64("axis", 0)})
    return [_made(made, value, FLOAT)]


def _axes(node: ir.Node, form: Form) -> list[ir.Value]:
    """The axes of a reduction where the float operator reads them."""
    given = node.attributes.get("axes")
    if given is None or not reads_axes(form, home(node).opset_imports.get("", AXES_READ)):
        return []
    return [add_initializer(home(node), f"{node.name}.axes", np.array(given.as_ints(), np.int64))]


def _replace(node: ir.Node) -> Replacement:
    form, old = _form(node), node.outputs[0]
    read = [_dequantize(node, first, _axis(node, form)) for first in form.operands] + _bias(node, form)
    axes = _axes(node, form)
    dropped = (*form.dropped, *(["axes"] if axes else []))
    kept = {name: value for name, value in node.attributes.items() if name not in dropped}
    given = [*(each.outputs[0] for each in read), *axes]
    name = f"{node.name}/{form.float_op}"
    made = _made(ir.Node("", form.float_op, given, kept, name=name), old, FLOAT)
    numbers = [made.outputs[0], needed(node, form.output), operand(node, form.output + 1)]
    quantize = _made(ir.Node("", "QuantizeLinear", numbers, name=f"{node.name}/Q"), old, old.type)
    return Replacement([*read, made, quantize], [(old, quantize.outputs[0])])


EXPAND_QLINEAR = Rule("expand QOperator", frozenset(FORMS[""]), _match, _check, _replace)
EXPAND_QLINEAR_MICROSOFT = Rule(
    "expand QOperator of ONNX Runtime",
    frozenset(FORMS[MICROSOFT]),
    _match,
    _check,
    _replace,
    domain=MICROSOFT,
)
