"""Export: a torch module to standard ONNX, its QuantLinear layers as Q/DQ around integer weights.

The graph holds MatMul and Add for every linear layer, with the weight as initializer [K, N] under the parameter's own
name: float, or s8 with a DequantizeLinear over its output channels. Q/DQ stands on the inputs of the weighted layers only,
as TensorRT wants it; layers that share an input share its Q/DQ.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from openwork.quantization.affine import Activation
from openwork.quantization.modules import QuantLinear

OPSET = 20
"""The first opset with Gelu as one operator."""

PATTERN_KEY = "openwork.pattern."
ONNX_TYPE = {"s8": torch.int8, "u8": torch.uint8}


@dataclass(frozen=True)
class ExportOptions:
    """Names and free dimensions of the exported graph.

    dynamic_axes: per input, dimension number to name. limits: the largest value of a named dimension, where there is one.
    """

    output_names: tuple[str, ...] = ("embedding",)
    dynamic_axes: Mapping[str, Mapping[int, str]] = field(
        default_factory=lambda: {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
    )
    limits: Mapping[str, int] = field(default_factory=lambda: {"length": 512})


class ExportedLinear(nn.Module):
    """A linear layer as the graph shows it: weight [K, N], with Q/DQ around both operands if it is quantized."""

    def __init__(self, layer: nn.Linear | QuantLinear) -> None:
        super().__init__()
        self.quantized = isinstance(layer, QuantLinear)
        weight = layer.quantized_weight() if isinstance(layer, QuantLinear) else layer.weight.detach()
        self.register_buffer("weight", weight.t().contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())
        if isinstance(layer, QuantLinear):
            self.activation: Activation = layer.activation
            self.register_buffer("weight_scale", layer.weight_scale)
            self.register_buffer("input_scale", layer.input_scale)
            self.register_buffer("input_zero_point", layer.input_zero_point.to(ONNX_TYPE[layer.activation]))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(*self._operands(x))
        return y if self.bias is None else y + self.bias

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.quantized:
            return x, self.weight
        symbolic = torch.onnx.ops.symbolic
        affine = (self.input_scale, self.input_zero_point)
        integers = symbolic("QuantizeLinear", (x, *affine), dtype=ONNX_TYPE[self.activation], shape=x.shape)
        rounded = symbolic("DequantizeLinear", (integers, *affine), dtype=torch.float32, shape=x.shape)
        weight = symbolic(
            "DequantizeLinear", (self.weight, self.weight_scale), {"axis": 1}, dtype=torch.float32, shape=self.weight.shape
        )
        return rounded, weight


def export(model: nn.Module, inputs: Mapping[str, Tensor], path: str | Path, options: ExportOptions | None = None) -> Path:
    """Write the model, float or quantized, to `path` as ONNX; the file appears whole or not at all.

    inputs: example arguments by the names that `forward` gives them; every free dimension at least 2.
    """
    options = options or ExportOptions()
    graph = _trace(_exportable(model), inputs, options)
    _name(graph, options)
    return _write(graph, Path(path))


def _exportable(model: nn.Module) -> nn.Module:
    converted = copy.deepcopy(model).eval()
    for name, layer in list(converted.named_modules()):
        if isinstance(layer, nn.Linear | QuantLinear):
            converted.set_submodule(name, ExportedLinear(layer))
    return converted


def _trace(model: nn.Module, inputs: Mapping[str, Tensor], options: ExportOptions) -> ir.Model:
    dimensions = {
        name: torch.export.Dim(name, min=1, max=options.limits.get(name))
        for axes in options.dynamic_axes.values()
        for name in axes.values()
    }
    shapes = {name: {i: dimensions[d] for i, d in options.dynamic_axes.get(name, {}).items()} for name in inputs}
    with _quiet():
        program = torch.onnx.export(
            model, (), kwargs=dict(inputs), dynamo=True, opset_version=OPSET, input_names=list(inputs),
            dynamic_shapes=shapes, verbose=False,
        )
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _name(model: ir.Model, options: ExportOptions) -> None:
    """Name every node and value after the module it comes from, and drop traces of where it was exported."""
    used: Counter[str] = Counter()
    for node in model.graph:
        scopes = eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "['']"))
        scope = scopes[-2] if len(scopes) > 1 else ""
        name = f"{scope}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"
        for i, out in enumerate(node.outputs):
            out.name = node.name if i == 0 else f"{node.name}:{i}"
    for out, name in zip(model.graph.outputs, options.output_names, strict=True):
        out.name = name
    ClearMetadataAndDocStringPass()(model)


def _write(model: ir.Model, path: Path) -> Path:
    proto = ir.to_proto(model)
    temporary = path.with_name(path.name + ".tmp")
    onnx.save(proto, temporary)
    onnx.checker.check_model(str(temporary))
    os.replace(temporary, path)
    return path
