"""Files of operators on integers (QLinear*): each as ONNX Runtime's quantizer writes it, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime import quantization as ort_quantization

from graph_models import Array, Builder, runtime
from image_models import agrees, away_from_ties, built
from openwork.graph import lowerable, read, reduce

MICROSOFT = "com.microsoft"
X, Y = (0.05, 117), (0.0437, 131)


@dataclass
class Operator:
    """A node on integers, and the same as dequantize, compute, quantize: what it means."""

    op: str
    float_op: str
    shapes: Sequence[tuple[int, ...]] = ((2, 8, 6, 6),)
    weight: tuple[int, ...] = ()
    domain: str = MICROSOFT
    attributes: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None
    y: tuple[float, int] = Y
    dtype: type = np.uint8


IMAGE = (2, 8, 6, 6)
OPERATORS: dict[str, Operator] = {
    "QLinearConv": Operator(
        "QLinearConv", "Conv", weight=(12, 8, 3, 3), domain="", attributes={"pads": [1] * 4}
    ),
    "QLinearConv in groups": Operator(
        "QLinearConv", "Conv", weight=(8, 1, 3, 3), domain="", attributes={"group": 8, "strides": [2, 2]}
    ),
    "QLinearMatMul": Operator("QLinearMatMul", "MatMul", ((5, 16),), (16, 9), ""),
    "QGemm": Operator("QGemm", "Gemm", ((5, 16),), (9, 16), attributes={"transB": 1}),
    "QLinearAdd": Operator("QLinearAdd", "Add", (IMAGE, IMAGE)),
    "QLinearMul": Operator("QLinearMul", "Mul", (IMAGE, IMAGE)),
    "QLinearMul by pixels": Operator("QLinearMul", "Mul", (IMAGE, (2, 8, 1, 1))),
    "QLinearConcat": Operator("QLinearConcat", "Concat", (IMAGE, (2, 4, 6, 6)), attributes={"axis": 1}),
    "QLinearAveragePool": Operator(
        "QLinearAveragePool",
        "AveragePool",
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        extra={"channels_last": 0},
    ),
    "QLinearGlobalAveragePool": Operator(
        "QLinearGlobalAveragePool", "GlobalAveragePool", extra={"channels_last": 0}, y=(0.0107, 128)
    ),
    "QLinearSigmoid": Operator("QLinearSigmoid", "Sigmoid", y=(1 / 255, 0)),
    "QLinearLeakyRelu": Operator("QLinearLeakyRelu", "LeakyRelu", attributes={"alpha": 0.1}),
    "QLinearSoftmax": Operator(
        "QLinearSoftmax", "Softmax", ((5, 16),), attributes={"axis": -1}, extra={"opset": 13}, y=(1 / 255, 0)
    ),
}


def known_weight(b: Builder, form: Operator) -> tuple[list[str], str, list[str], str]:
    """A weight with its scales and zero points, and a bias INT32 with the float that it is, or none."""
    along = form.weight[1] if form.op == "QLinearMatMul" else form.weight[0]
    reduction = np.prod(form.weight) / along
    values = b.constant(b.rng.integers(-127, 128, form.weight).astype(np.int8), "layer.weight")
    scales = (b.rng.uniform(0.5, 1.5, along) / (100 * np.sqrt(reduction))).astype(np.float32)
    scale, point = b.constant(scales, "scales"), b.constant(np.zeros(along, np.int8), "points")
    axis = 1 if form.op == "QLinearMatMul" else 0
    dequantized = b.add("DequantizeLinear", values, scale, point, axis=axis)
    if form.op == "QLinearMatMul":
        return [values, scale, point], dequantized, [], ""
    integers = b.rng.integers(-3000, 3000, along).astype(np.int32)
    by = np.asarray(np.float32(X[0]) * scales, np.float32)
    bias = b.constant(integers, "layer.bias")
    return [values, scale, point], dequantized, [bias], b.constant(integers.astype(np.float32) * by)


def two_spellings(form: Operator) -> tuple[onnx.ModelProto, onnx.ModelProto, dict[str, Array]]:
    """The node on integers, and its twin of dequantize, compute, quantize, on the same inputs."""
    models, feeds = [], {}
    for integers in (True, False):
        b = Builder(np.random.default_rng(5), 20, domains=(MICROSOFT,))
        pair, out = b.quantizer(*X, form.dtype), b.quantizer(*form.y, form.dtype)
        names = [b.input(f"x{i}", ["n", *shape[1:]]) for i, shape in enumerate(form.shapes)]
        feeds = {n: away_from_ties(b.rng, shape) for n, shape in zip(names, form.shapes, strict=True)}
        q = [b.add("QuantizeLinear", name, *pair) for name in names]
        weight = known_weight(b, form) if form.weight else None
        attributes = form.attributes or {}
        if not integers:
            given = [b.add("DequantizeLinear", each, *pair) for each in q]
            given += [] if weight is None else [weight[1], *([weight[3]] if weight[3] else [])]
            made = b.add(form.float_op, *given, **attributes)
            models.append(b.model(y=b.add("QuantizeLinear", made, *out)))
            continue
        attributes = {**attributes, **(form.extra or {})}
        operands = [part for each in q for part in (each, *pair)]
        if weight is not None:
            # The dequantized weight of the twin is made here too, and read by nobody.
            b.nodes.pop()
            operands += weight[0]
        if form.op == "QLinearConcat":
            operands = [*out, *operands]
        elif form.op == "QGemm":
            operands += [*(weight[2] if weight else []), *out]
        else:
            operands += [*out, *(weight[2] if weight else [])]
        name = f"{form.op}_{len(b.nodes)}"
        b.nodes.append(
            helper.make_node(form.op, operands, [f"{name}_out"], name, domain=form.domain, **attributes)
        )
        models.append(stated(b.model(y=f"{name}_out"), form))
    return models[0], models[1], feeds


def stated(model: onnx.ModelProto, form: Operator) -> onnx.ModelProto:
    """onnx knows no shapes of operators of another domain; ONNX Runtime's files state them."""
    element = TensorProto.UINT8 if form.dtype is np.uint8 else TensorProto.INT8
    rank = 2 if form.float_op in ("Gemm", "MatMul", "Softmax") else 4
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", element, [f"y_{axis}" for axis in range(rank)])
    )
    return model


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_by_hand(name: str, tmp_path: Path) -> None:
    model, twin, feeds = two_spellings(OPERATORS[name])
    again = agrees(twin, feeds, tmp_path)
    if name == "QLinearSoftmax":
        # ONNX Runtime's kernel takes the exponents from a table of integers of its own.
        found = built(model, feeds, tmp_path)
        off = np.abs(found.outputs["y"].astype(int) - runtime(model, feeds)["y"].astype(int))
        assert off.max() <= 1
    else:
        found = agrees(model, feeds, tmp_path, twin=twin)
    assert found.steps == again.steps
    assert np.array_equal(found.outputs["y"], again.outputs["y"])


@pytest.mark.parametrize("name", ["QLinearConv", "QLinearAdd", "QLinearSigmoid", "QGemm"])
def test_operators_whose_scales_are_computed_stay(name: str) -> None:
    model, _, _ = two_spellings(OPERATORS[name])
    (node,) = [node for node in model.graph.node if node.op_type == name]
    node.input[1] = "fed"
    model.graph.input.append(helper.make_tensor_value_info("fed", TensorProto.FLOAT, []))
    left = [reason for each, reason in lowerable(reduce(read(model))[0]) if each.op_type == name]
    assert len(left) == 1
    assert "its scales are not constants" in left[0]


def test_images_that_stand_channels_last_stay() -> None:
    model, _, _ = two_spellings(OPERATORS["QLinearGlobalAveragePool"])
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.i = 1
    left = [reason for _, reason in lowerable(reduce(read(model))[0])]
    assert any("its images stand channels last" in reason for reason in left)


KEEPERS: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
    "MaxPool": ((2, 8, 6, 6), {"kernel_shape": [2, 2], "strides": [2, 2]}, ()),
    "Flatten": ((2, 8, 6, 6), {}, ()),
    "Reshape": ((2, 8, 6, 6), {}, (0, 4, 72)),
    "Transpose": ((2, 8, 6, 6), {"perm": [0, 2, 3, 1]}, ()),
    "Squeeze": ((2, 8, 1, 1), {}, (2, 3)),
    "Unsqueeze": ((2, 8), {}, (2,)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("op", KEEPERS)
def test_integers_pass_through_what_keeps_numbers(op: str, dtype: type, tmp_path: Path) -> None:
    """As files of operators on integers have it: without a float in between."""
    shape, attributes, numbers = KEEPERS[op]
    b = Builder(np.random.default_rng(4))
    pair, x = b.quantizer(0.05, 117 if dtype is np.uint8 else -11, dtype), b.input("x", ["n", *shape[1:]])
    y = b.add(
        op, b.add("QuantizeLinear", x, *pair), *([b.integers(*numbers)] if numbers else []), **attributes
    )
    y = b.add("Relu", b.add("DequantizeLinear", y, *pair))
    found = agrees(b.model(y=y), {"x": away_from_ties(b.rng, shape)}, tmp_path)
    assert "fallback" not in found.steps


class _Images(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(1)
        self.images = iter([{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(6)])

    def get_next(self) -> Any:
        return next(self.images, None)


def network() -> onnx.ModelProto:
    """A convolution, a table, a residual, squeeze and excitation, a pool, a concat, a classifier."""
    b = Builder(np.random.default_rng(6), 17)
    x = b.input("x", [2, 8, 12, 12])
    y = b.add("Relu", b.add("Conv", x, b.normal(8, 8, 3, 3, scale=0.1), b.normal(8, scale=0.1), pads=[1] * 4))
    z = b.add("Conv", y, b.normal(8, 1, 3, 3, scale=0.3), b.normal(8, scale=0.1), pads=[1] * 4, group=8)
    z = b.add("LeakyRelu", z, alpha=0.1)
    y = b.add("Add", z, y)
    gate = b.add("Sigmoid", b.add("Conv", b.add("GlobalAveragePool", y), b.normal(8, 8, 1, 1), b.normal(8)))
    y = b.add("Mul", y, gate)
    pools = [
        b.add(op, y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4) for op in ("MaxPool", "AveragePool")
    ]
    y = b.add("Concat", *pools, axis=1)
    y = b.add("Flatten", b.add("GlobalAveragePool", y))
    return b.model(y=b.add("Softmax", b.add("Gemm", y, b.normal(10, 16), b.normal(10), transB=1), axis=-1))


@pytest.mark.parametrize("format_name", ["QOperator", "QDQ"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_network_of_onnx_runtimes_quantizer(format_name: str, per_channel: bool, tmp_path: Path) -> None:
    """Every operator that its quantizer writes; the engine runs all of them in native steps."""
    source, path = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(network(), source)
    ort_quantization.quantize_static(
        str(source),
        str(path),
        _Images((2, 8, 12, 12)),
        quant_format=getattr(ort_quantization.QuantFormat, format_name),
        per_channel=per_channel,
    )
    model = onnx.load(path)
    if format_name == "QOperator":
        written = {node.op_type for node in model.graph.node}
        assert {"QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid"} <= written
        assert {"QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool"} <= written
    feeds = {"x": np.random.default_rng(2).standard_normal((2, 8, 12, 12)).astype(np.float32)}
    found, (expected,) = built(model, feeds, tmp_path), runtime(model, feeds).values()
    (made,) = found.outputs.values()
    # The softmax is of 10 classes, rounded to 1/256: ties inside of the network move it by a few steps.
    assert np.abs(made - expected).max() <= 4 / 256
    assert np.array_equal(made.argmax(-1), expected.argmax(-1))
