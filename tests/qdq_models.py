"""Small quantized ONNX models, written node by node, that ONNX Runtime runs as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from openwork.sparsity import Pattern, magnitude_mask


@dataclass
class Net:
    """A chain of Q/DQ linear layers over x f32 [batch, features]."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    top: str = "x"

    def constant(self, name: str, array: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def quantized(self, source: str, scale: float, zero_point: int = 128) -> str:
        """Quantize and dequantize a value as u8."""
        mark = len(self.nodes)
        pair = (
            self.constant(f"scale{mark}", np.float32(scale)),
            self.constant(f"zero{mark}", np.uint8(zero_point)),
        )
        return self.node("DequantizeLinear", self.node("QuantizeLinear", source, *pair), *pair)

    def linear(
        self,
        name: str,
        n: int,
        k: int,
        sparse: bool = False,
        relu: bool = False,
        prune: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """A Q/DQ linear layer over the top of the chain: x @ weight.T + bias.

        sparse : 2:4. prune : what makes the weight s8 [n, k] sparse in any other way.
        """
        weight = self.rng.integers(-127, 128, (n, k)).astype(np.int8)
        if sparse:
            weight = keep_two_of_four(weight)
        if prune is not None:
            weight = prune(weight)
        scale = self.rng.uniform(0.5, 1.5, n).astype(np.float32) / np.float32(80 * np.sqrt(k))
        parts = (
            self.constant(f"{name}.weight", np.ascontiguousarray(weight.T)),
            self.constant(f"{name}.weight_scale", scale),
            self.constant(f"{name}.weight_zero", np.zeros(n, np.int8)),
        )
        product = self.node(
            "MatMul", self.quantized(self.top, 1 / 32), self.node("DequantizeLinear", *parts, axis=1)
        )
        bias = self.constant(f"{name}.bias", self.rng.standard_normal(n).astype(np.float32))
        self.top = self.node("Add", product, bias)
        self.nodes[-1].name = name
        if relu:
            self.top = self.node("Relu", self.top)

    def model(self, k: int, n: int) -> onnx.ModelProto:
        """The finished model, with the top of the chain as its output `y` [batch, n]."""
        self.nodes.append(helper.make_node("Identity", [self.top], ["y"], "last"))
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", n])],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        return model


def keep_two_of_four(weight: np.ndarray) -> np.ndarray:
    """Zero all but the two largest magnitudes of every four consecutive columns."""
    groups = weight.reshape(len(weight), -1, 4).copy()
    order = np.argsort(np.abs(groups.astype(np.int32)), axis=2)
    np.put_along_axis(groups, order[:, :, :2], 0, axis=2)
    return groups.reshape(weight.shape)


def magnitude_pruned(pattern: str) -> Callable[[np.ndarray], np.ndarray]:
    """What makes a weight s8 [n, k] follow a pattern, with no other zeros."""

    def prune(weight: np.ndarray) -> np.ndarray:
        full = np.where(weight == 0, 1, weight).astype(np.int8)
        mask = magnitude_mask(torch.from_numpy(full.astype(np.float32)), Pattern.parse(pattern))
        return full * mask.numpy()

    return prune


def two_layers(seed: int = 0, sparse: bool = True, exotic: str | None = None) -> onnx.ModelProto:
    """64 -> 96 (ReLU) -> 32, the first layer 2:4 where `sparse`; `exotic` names a unary operator in
    between."""
    net = Net(np.random.default_rng(seed))
    net.linear("first", 96, 64, sparse=sparse, relu=True)
    if exotic is not None:
        net.top = net.node(exotic, net.top)
    net.linear("second", 32, 96)
    return net.model(64, 32)
