"""Operators on integers with their scales among their inputs (QLinear*): what each one means in floats.

onnx infers no shapes of those of another domain, so for inference floats stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

MICROSOFT = "com.microsoft"
AXES_READ = 18
"""The opset from which on a reduction reads its axes."""


@dataclass(frozen=True)
class Form:
    """How an operator of integers is written: which float operator it is, the first place of each of its
    operands (the value, then its scale and zero point), the place of the output's scale, of an INT32 bias or
    -1, the attributes that the float operator has not, and whether its attribute `axes` is an input of the
    float operator from opset AXES_READ on."""

    float_op: str
    operands: tuple[int, ...]
    output: int
    bias: int = -1
    weight: int = -1
    dropped: tuple[str, ...] = ()
    axes: bool = False


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
        "QLinearReduceMean": Form("ReduceMean", (0,), 3, axes=True),
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
    nodes = [each for node in model.graph.node for each in stand_ins(node, model.opset_import)]
    if len(nodes) > len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    return model


def reads_axes(form: Form, opset: int) -> bool:
    """Whether what is an attribute of an operator on integers is an input of the float operator."""
    return form.axes and opset >= AXES_READ


def stand_ins(node: onnx.NodeProto, imports: Iterable[onnx.OperatorSetIdProto]) -> Iterator[onnx.NodeProto]:
    """What stands for a node where types and shapes are inferred: dequantize each operand, compute, quantize;
    the node itself where it is no operator of another domain that has a form."""
    form = form_of(node.domain, node.op_type, len(node.input)) if node.domain == MICROSOFT else None
    by_channels_last = any(a.name == "channels_last" and a.i for a in node.attribute)
    if form is None or by_channels_last or len(node.input) <= max((*form.operands, 0)) + 1:
        yield node
        return
    name = f"{node.output[0]}/stand-in"
    values = [f"{name}.{place}" for place in range(len(form.operands))]
    for first, value in zip(form.operands, values, strict=True):
        yield helper.make_node("DequantizeLinear", node.input[first : first + 2], [value])
    opset = next((entry.version for entry in imports if entry.domain in ("", "ai.onnx")), AXES_READ)
    read = [a for a in node.attribute if a.name == "axes" and reads_axes(form, opset)]
    for axes in read:
        yield helper.make_node("Constant", [], [f"{name}.axes"], value=_integers(axes.ints))
        values.append(f"{name}.axes")
    made = helper.make_node(form.float_op, values, [f"{name}.made"])
    made.attribute.extend(a for a in node.attribute if a.name not in form.dropped and a not in read)
    yield made
    numbers = [each for each in node.input[form.output : form.output + 2] if each]
    op_type = "QuantizeLinear" if numbers else "Identity"
    yield helper.make_node(op_type, [f"{name}.made", *numbers], node.output[:1])


def _integers(values: Sequence[int]) -> onnx.TensorProto:
    return helper.make_tensor("axes", onnx.TensorProto.INT64, [len(values)], values)
