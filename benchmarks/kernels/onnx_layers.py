"""A problem as an ONNX model of one layer, in the form that engines fuse best.

INT8 is DequantizeLinear, the layer, QuantizeLinear, between a u8 input and a u8 output: nothing of the float
quantization of a network's first input is in it. Images are NHWC outside, as inside of the engines' INT8
kernels; the Transposes are no work: each engine cancels them against its own. They stand on the float side,
for OpenVINO takes a Transpose of u8 in front as a reason to leave INT8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .problem import X_SCALE, X_ZERO_POINT, Y_ZERO_POINT, Problem, to_bf16
from .shapes import Convolution

OPSET, IR_VERSION = 17, 8
ELEMENTS = {"int8": TensorProto.UINT8, "bf16": TensorProto.BFLOAT16, "fp32": TensorProto.FLOAT}
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def model(problem: Problem, nchw: bool = False) -> ModelProto:
    """The layer with its bias, from `x` to `y`. nchw: the model's images are NCHW, without Transposes."""
    if problem.type == "int8":
        nodes, constants = _quantized(problem)
    else:
        nodes = _layer(problem, "x", "y", nchw)
        constants = {"weight": _natural(problem, problem.weight), "bias": problem.bias}
    element = ELEMENTS[problem.type]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", element, _outer(problem.layer.shape.x_shape, nchw))],
        [helper.make_tensor_value_info("y", element, _outer(problem.layer.shape.y_shape, nchw))],
        [_constant(name, value, problem.type) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def _constant(name: str, value: Any, kind: str) -> TensorProto:
    if kind == "bf16":
        return helper.make_tensor(name, TensorProto.BFLOAT16, value.shape, to_bf16(value).tobytes(), raw=True)
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def _outer(shape: tuple[int, ...], nchw: bool) -> list[int]:
    return [shape[i] for i in TO_NCHW] if nchw and len(shape) == 4 else list(shape)


def _natural(problem: Problem, weight: Any) -> Any:
    """The weight as ONNX orders it: [n, k], or [n, channels, kh, kw]."""
    return weight.transpose(TO_NCHW) if isinstance(problem.layer.shape, Convolution) else weight


def _quantized(problem: Problem) -> tuple[list[NodeProto], dict[str, Any]]:
    n = problem.layer.shape.n
    sums = (X_SCALE * problem.weight_scale).astype(np.float32)
    constants = {
        "q_weight": _natural(problem, problem.weight),
        "weight_scale": problem.weight_scale,
        "weight_zero": np.zeros(n, np.int8),
        "q_bias": np.rint(problem.bias / sums).astype(np.int32),
        "bias_scale": sums,
        "bias_zero": np.zeros(n, np.int32),
        "x_scale": X_SCALE,
        "x_zero": np.uint8(X_ZERO_POINT),
        "y_scale": problem.y_scale,
        "y_zero": np.uint8(Y_ZERO_POINT),
    }
    image = isinstance(problem.layer.shape, Convolution)
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["q_weight", "weight_scale", "weight_zero"], ["weight"], axis=0),
        helper.make_node("DequantizeLinear", ["q_bias", "bias_scale", "bias_zero"], ["bias"], axis=0),
    ]
    inner = _layer(problem, "x_float", "y_float", False)
    out = "y_image" if image else "y"
    quantize = helper.make_node("QuantizeLinear", ["y_float", "y_scale", "y_zero"], [out])
    if not image:
        return [*nodes, *inner, quantize], constants
    transpose, convolution, back = inner
    convolution.output[0] = "y_float"
    back.input[0], back.output[0] = "y_image", "y"
    return [*nodes, transpose, convolution, quantize, back], constants


def _layer(problem: Problem, x: str, y: str, nchw: bool) -> list[NodeProto]:
    shape = problem.layer.shape
    if not isinstance(shape, Convolution):
        return [helper.make_node("Gemm", [x, "weight", "bias"], [y], transB=1)]
    inner = (x, y) if nchw else ("x_nchw", "y_nchw")
    convolution = helper.make_node(
        "Conv",
        [inner[0], "weight", "bias"],
        [inner[1]],
        kernel_shape=shape.kernel,
        strides=shape.stride,
        dilations=shape.dilation,
        pads=shape.padding * 2,
        group=shape.groups,
    )
    if nchw:
        return [convolution]
    to = helper.make_node("Transpose", [x], ["x_nchw"], perm=TO_NCHW)
    back = helper.make_node("Transpose", ["y_nchw"], [y], perm=TO_NHWC)
    return [to, convolution, back]
