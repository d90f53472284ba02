"""Operators on integers with their scales among their inputs (QLinear*): what each one means in floats.

onnx infers no shapes of those of another domain, so for inference floats stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Form:
    """How an operator of integers is written: which float operator it is, the first place of each of its
    operands (the value, then its scale and zero point), the place of the output's scale, of an INT32 bias or
    -1, and the attributes that the float operator has not."""

    float_op: str
    operands: tuple[int, ...]
    output: int
    bias: int = -1
    weight: int = -1
    dropped: tuple[str, ...] = ()


FORMS = {
    "": {
        "QLinearMatMul": Form("MatMul", (0, 3), 6, weight=3),
        "QLinearConv": Form("Conv", (0, 3), 6, bias=8, weight=3),
    },
    MICROSOFT: {
        "QGemm": Form("Gemm", (0, 3), 7, bias=6, weight=3),
        "QLinearAdd": Form("Add", (0, 3), 6),
        "QLinearMul": Form("Mul", (0, 3), 6),
        "QLinearAveragePool": Form("AveragePool", (0,), 3, dropped=("channels_last",)),
        "QLinearGlobalAveragePool": Form("GlobalAveragePool", (0,), 3, dropped=("channels_last",)),
        "QLinearReduceMean": Form("ReduceMean", (0,), 3),
        "QLinearSigmoid": Form("Sigmoid", (0,), 3),
        "QLinearLeakyRelu": Form("LeakyRelu", (0,), 3),
        "QLinearSoftmax": Form("Softmax", (0,), 3, dropped=("opset",)),
        "QLinearConcat": Form("Concat", (), 0),
    },
}
"""By domain and operator. QLinearConcat has any number of operands behind what its output is quantized by."""


def form_of(domain: str, op_type: str, inputs: int) -> Form | None:
    """How a node of so many inputs is written; None for another operator."""
    found = FORMS.get(MICROSOFT if domain == MICROSOFT else "", {}).get(op_type)
    if found is None or op_type != "QLinearConcat":
        return found
    return Form(found.float_op, tuple(range(2, inputs, 3)), found.output)


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nodes of ONNX alone in the place of those of another domain that have a form: whatever
    follows from their types and shapes follows from these. Changed in place, and no model to run."""
    nodes = [stand_in for node in model.graph.node for stand_in in _stand_ins(node)]
    if len(nodes) > len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return model


def _stand_ins(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Dequantize each operand, compute, quantize."""
    form = form_of(node.domain, node.op_type, len(node.input)) if node.domain == MICROSOFT else None
    by_channels_last = any(a.name == "channels_last" and a.i for a in node.attribute)
    if form is None or by_channels_last or len(node.input) <= max((*form.operands, 0)) + 1:
        yield node
        return
    name = f"{node.output[0]}/stand-in"
    values = [f"{name}.{place}" for place in range(len(form.operands))]
    for first, value in zip(form.operands, values, strict=True):
        yield helper.make_node("DequantizeLinear", node.input[first : first + 2], [value])
    made = helper.make_node(form.float_op, values, [f"{name}.made"])
    made.attribute.extend(a for a in node.attribute if a.name not in form.dropped)
    yield made
    numbers = [each for each in node.input[form.output : form.output + 2] if each]
    op_type = "QuantizeLinear" if numbers else "Identity"
    yield helper.make_node(op_type, [f"{name}.made", *numbers], node.output[:1])
