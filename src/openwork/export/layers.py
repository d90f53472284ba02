"""A model with its quantized layers and quantizers replaced by modules that trace to Q/DQ around integers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from openwork.export.operators import INTEGERS, OPERATORS, Operators
from openwork.export.options import Exporter
from openwork.quantization.modules import QuantLinear


class ExportedQuantizer(nn.Module):
    """Q/DQ of an activation, of the integers of `zero_point`'s type."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, axis: int | None, operators: Operators) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.detach().clone())
        self.axis, self.operators = axis, operators

    def forward(self, x: Tensor) -> Tensor:
        return self.operators.quantize_dequantize(x, self.scale, self.zero_point, self.axis)


class ExportedWeight(nn.Module):
    """DequantizeLinear of a stored s8 weight; the float weight that it is given is not read."""

    integers: Tensor
    scale: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, axis: int | None, operators: Operators) -> None:
        super().__init__()
        self.register_buffer("integers", integers.detach().contiguous())
        self.register_buffer("scale", scale.detach().clone())
        self.axis, self.operators = axis, operators

    def forward(self, weight: Tensor | None = None) -> Tensor:
        return self.operators.dequantize(self.integers, self.scale, self.axis)


class ExportedLinear(nn.Module):
    """A linear layer as the graph shows it: a MatMul with the weight [K, N], and an Add for the bias.

    multiplier: f32 [K] or None, on the input before it is quantized. quantizer, output: of input and output,
    or the identity. dequantizer: of the weight where that is stored as integers, else None.
    """

    weight: Tensor
    bias: Tensor | None
    multiplier: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().t().contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.register_buffer("multiplier", None)
        self.input_quantizer: nn.Module = nn.Identity()
        self.output_quantizer: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.multiplier is None else x * self.multiplier
        y = torch.matmul(self.input_quantizer(x), self._weight())
        rounded: Tensor = self.output_quantizer(y if self.bias is None else y + self.bias)
        return rounded

    def _weight(self) -> Tensor:
        return self.weight


class ExportedQuantLinear(ExportedLinear):
    """The same with an s8 weight [K, N] and a DequantizeLinear over its output channels, axis 1."""

    weight_scale: Tensor

    def __init__(self, integers: Tensor, scale: Tensor, bias: Tensor | None, operators: Operators) -> None:
        super().__init__(integers, bias)
        self.register_buffer("weight_scale", scale.detach().clone())
        self.operators = operators

    def _weight(self) -> Tensor:
        axis = 1 if self.weight_scale.ndim else None
        return self.operators.dequantize(self.weight, self.weight_scale, axis)


def exportable(model: nn.Module, exporter: Exporter) -> nn.Module:
    """A copy of the model in evaluation mode, each of its layers as the graph is to show it."""
    root = nn.ModuleDict({"model": copy.deepcopy(model).eval()})
    for name, layer in list(root.named_modules()):
        replacement = _replacement(layer, OPERATORS[exporter])
        if replacement is not None:
            root.set_submodule(name, replacement)
    return root["model"]


def _replacement(layer: nn.Module, operators: Operators) -> nn.Module | None:
    if isinstance(layer, QuantLinear):
        return _quant_linear(layer, operators)
    return ExportedLinear(layer.weight, layer.bias) if type(layer) is nn.Linear else None


def _quant_linear(layer: QuantLinear, operators: Operators) -> ExportedQuantLinear:
    exported = ExportedQuantLinear(layer.quantized_weight(), layer.weight_scale, layer.bias, operators)
    exported.multiplier = layer.input_multiplier
    zero_point = layer.input_zero_point.to(INTEGERS[layer.activation])
    exported.input_quantizer = ExportedQuantizer(layer.input_scale, zero_point, None, operators)
    return exported
