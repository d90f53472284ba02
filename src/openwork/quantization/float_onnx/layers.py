"""Which nodes of a float ONNX graph have integer kernels, and which of their inputs are what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from openwork.graph.model import attributes, constant, dims, is_onnx, needed, operand, producer
from openwork.quantization.placement.choices import LONGEST_REDUCTION, factor_for_channels, sizes_differ
from openwork.sparsity.masks.view import WeightView

Array = NDArray[Any]

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = (*CONVOLUTIONS, "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Layer:
    """A node with a stored weight.

    activation, weight: the places of its inputs. axis: the weight's axis of output channels. linear:
    whether the last axis of the activation is what the product sums over.
    """

    node: ir.Node
    activation: int
    weight: int
    axis: int
    linear: bool

    @property
    def value(self) -> ir.Value:
        """The weight as the graph holds it."""
        return needed(self.node, self.weight)

    def array(self) -> Array:
        """The weight's numbers."""
        stored = constant(self.value)
        assert stored is not None
        return stored

    def matrix(self) -> Array:
        """The weight of a linear layer as [out, in]."""
        return self.array() if self.axis == 0 else self.array().T

    def stack(self, weight: Array) -> Array:
        """A tensor of the weight's shape as a stack of matrices [stack, out, in]."""
        if self.node.op_type not in CONVOLUTIONS:
            return (weight if self.axis == 0 else weight.T)[None]
        groups = int(attributes(self.node).get("group", 1))
        kind = "conv" if self.node.op_type == "Conv" else "conv_transpose"
        view = WeightView("conv" if kind == "conv" else "conv_transpose", tuple(weight.shape), groups)
        return view.matrices(torch_tensor(weight)).numpy()


def torch_tensor(array: Array) -> Tensor:
    """An array as a tensor; copied where torch could not write to it."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def layer(node: ir.Node) -> Layer | str | None:
    """The layer that a node is; the reason why a product has no integer form; None for any other node."""
    if is_onnx(node, *CONVOLUTIONS):
        return _convolution(node)
    if is_onnx(node, "Gemm"):
        return _gemm(node)
    if is_onnx(node, "MatMul"):
        return _matmul(node)
    if is_onnx(node, "LSTM", "GRU", "RNN"):
        return f"{node.op_type} has no INT8 form; only convolutions, Gemm, MatMul and additions have."
    return None


def weighted_values(graph: ir.Graph) -> frozenset[ir.Value]:
    """The float values that come, over any number of nodes, from a layer or product."""
    found: set[ir.Value] = set()
    for node in graph:
        if is_onnx(node, *PRODUCTS) or any(value in found for value in node.inputs):
            found.update(value for value in node.outputs if _floating(value))
    return frozenset(found)


def is_product(node: ir.Node, weighted: frozenset[ir.Value]) -> bool:
    """Whether a node multiplies two activations, as attention does. weighted: see `weighted_values`."""
    return is_onnx(node, "MatMul") and all(value in weighted for value in node.inputs)


def residual_reason(node: ir.Node, weighted: frozenset[ir.Value]) -> str | None:
    """Why an Add is no residual addition; None where it is one: it joins two activations of one shape, at
    least one of which comes from a layer with weights. "" where it is no addition of two activations at all.
    """
    if not is_onnx(node, "Add") or any(constant(v) is not None or not _floating(v) for v in node.inputs):
        return ""
    left, right = (dims(value) for value in node.inputs)
    if left is None or right is None or len(left) != len(right) or sizes_differ(left, right):
        return f"is no residual addition: the shapes {list(left or [])} and {list(right or [])} differ."
    if not any(value in weighted for value in node.inputs):
        return "is no residual addition: neither input comes from a layer with weights."
    if any(is_onnx(use.node, "LayerNormalization") for use in node.outputs[0].uses()):
        return "goes to a LayerNormalization, which runs in float: INT8 would save nothing and cost accuracy."
    return None


def scales_channels(node: ir.Node, weighted: frozenset[ir.Value]) -> bool:
    """Whether a Mul multiplies an image's channels by a factor each, as squeeze-and-excitation does."""
    if not is_onnx(node, "Mul") or not all(value in weighted for value in node.inputs):
        return False
    left, right = (dims(value) for value in node.inputs)
    if left is None or right is None:
        return False
    return factor_for_channels(left, right) or factor_for_channels(right, left)


def is_mean(node: ir.Node) -> bool:
    """Whether a node gives means over an image."""
    return is_onnx(node, "GlobalAveragePool", "AveragePool", "ReduceMean")


def is_embedding(node: ir.Node) -> bool:
    """Whether a node looks rows of a stored table up."""
    table = constant(operand(node, 0)) if is_onnx(node, "Gather") else None
    return (
        table is not None
        and table.ndim == 2
        and table.dtype == np.float32
        and not attributes(node).get("axis")
    )


def follows_fold(value: ir.Value) -> bool:
    """Whether what makes a tensor can multiply each channel of it at no cost.

    The same as `FOLDING` in `trace/operations.py` for torch modules.
    """
    if producer(value, "LayerNormalization", "Gelu", "Relu") is not None:
        return True
    last = producer(value, "Mul")
    return last is not None and any(_near(v, "Erf", 4) for v in last.inputs)


def _near(value: ir.Value | None, op_type: str, depth: int) -> bool:
    node = value.producer() if value is not None else None
    if node is None or depth == 0:
        return False
    return node.op_type == op_type or any(_near(v, op_type, depth - 1) for v in node.inputs)


def _convolution(node: ir.Node) -> Layer | str:
    weight = constant(operand(node, 1))
    if weight is None:
        return "Its weight is computed, so it has no fixed scale."
    axis = 0 if node.op_type == "Conv" else 1
    groups = int(attributes(node).get("group", 1))
    inputs = weight.shape[1] if axis == 0 else weight.shape[0] // groups
    return _refusal(node, weight, inputs * math.prod(weight.shape[2:])) or Layer(node, 0, 1, axis, False)


def _gemm(node: ir.Node) -> Layer | str:
    weight = constant(operand(node, 1))
    if weight is None:
        return "Its weight is computed, so it has no fixed scale."
    named = attributes(node)
    axis = 0 if named.get("transB", 0) else 1
    if named.get("transA", 0):
        return "It transposes its input, which no integer kernel does."
    return _refusal(node, weight, weight.shape[1 - axis]) or Layer(node, 0, 1, axis, True)


def _matmul(node: ir.Node) -> Layer | str | None:
    left, weight = (constant(operand(node, i)) for i in (0, 1))
    if left is not None and weight is None:
        return "Its weight is the left operand, and only right ones, [in, out], have integer kernels."
    if weight is None:
        return None
    if weight.ndim != 2:
        return f"Its weight has the shape {list(weight.shape)}, and only [in, out] has integer kernels."
    return _refusal(node, weight, weight.shape[0]) or Layer(node, 0, 1, 1, True)


def _refusal(node: ir.Node, weight: Array, reduction: int) -> str | None:
    if weight.dtype != np.float32:
        return f"Its weight is {weight.dtype}, and only float32 weights are quantized."
    if not _floating(operand(node, 0)):
        return "Its input is not float32."
    if constant(operand(node, 0)) is not None:
        return "Its input is stored in the model, so it computes a constant."
    if reduction > LONGEST_REDUCTION:
        return f"{reduction} products overflow an INT32 sum; at most {LONGEST_REDUCTION} fit."
    return None


def _floating(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in (None, ir.DataType.FLOAT)
