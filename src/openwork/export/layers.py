"""A model with its quantizers replaced by modules that trace to Q/DQ around stored integers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.export.operators import INTEGERS, OPERATORS, Operators
from openwork.export.options import Exporter
from openwork.export.weights import StoredWeight, quantizers, rounds_weight, stored_weights
from openwork.qdq.affine import RANGES
from openwork.quantization.copies import copied
from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import QuantLinear

logger = logging.getLogger(__name__)

COPIED = "an export writes a copy, which traces to a graph, so make the model one that can be copied"
THIRDS = 3
IN_PROJECTION = "in_proj_quantizer"
"""The quantizer of an attention's three projections (`quantization/fake_quantization/multihead.py`)."""


class ExportedQuantizer(nn.Module):
    """Q/DQ of an activation.

    Where the quantizer leaves out the lowest integer, which QuantizeLinear has, its input is clipped first.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: FakeQuantize, operators: Operators) -> None:
        super().__init__()
        scale, zero_point = quantizer.scales()
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point.to(INTEGERS[quantizer.dtype]))
        self.axis, self.operators = quantizer.axis, operators
        self.lowest: float | None = None
        if quantizer.limits != RANGES[quantizer.dtype]:
            if quantizer.axis is not None:
                raise ValueError(
                    f"{quantizer.name} leaves out the lowest integer and has a scale for each channel, which "
                    "cannot be exported; give it one scale."
                )
            self.lowest = float(quantizer.limits[0] * scale)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.lowest is None else x.clamp(min=self.lowest)
        return self.operators.quantize_dequantize(x, self.scale, self.zero_point, self.axis)


class ExportedWeight(nn.Module):
    """DequantizeLinear of a stored s8 weight; the float weight that it is given is not read."""

    integers: Tensor
    scale: Tensor

    def __init__(self, stored: StoredWeight, operators: Operators) -> None:
        super().__init__()
        self.register_buffer("integers", stored.integers.contiguous())
        self.register_buffer("scale", stored.scale)
        self.axis, self.operators = stored.axis, operators

    def forward(self, weight: Tensor | None = None) -> Tensor:
        return self.operators.dequantize(self.integers, self.scale, self.axis)


class Projections(tuple[Tensor, ...]):
    """The weights of an attention's query, key and value, in the place of the tensor that holds all three."""

    def chunk(self, count: int, dim: int = 0) -> Projections:
        """Themselves: they are apart already. Raises ValueError for another number or axis."""
        if count != len(self) or dim != 0:
            raise ValueError(f"{len(self)} projections along axis 0 cannot be cut into {count} along {dim}.")
        return self


class ExportedProjections(nn.Module):
    """The stored weights of an attention's three projections, each with a DequantizeLinear of its own.

    Behind one for all three stands a Split, where no engine finds the integers of a product.
    """

    def __init__(self, stored: StoredWeight, operators: Operators) -> None:
        super().__init__()
        thirds = zip(stored.integers.chunk(THIRDS), stored.scale.chunk(THIRDS), strict=True)
        self.parts = nn.ModuleList(
            ExportedWeight(StoredWeight(stored.name, integers, scale, stored.axis), operators)
            for integers, scale in thirds
        )

    def forward(self, weight: Tensor | None = None) -> Projections:
        return Projections(part() for part in self.parts)


class ExportedLinear(nn.Module):
    """A linear layer as the graph shows it: a MatMul with the weight [K, N], and an Add for the bias.

    multiplier: f32 [K] or None, on the input before it is quantized. The quantizers of input and output are
    the identity where the layer has none.
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

    def forward(self, input: Tensor) -> Tensor:
        x = input if self.multiplier is None else input * self.multiplier
        y = torch.matmul(self.input_quantizer(x), self._weight())
        rounded: Tensor = self.output_quantizer(y if self.bias is None else y + self.bias)
        return rounded

    def _weight(self) -> Tensor:
        return self.weight


class ExportedQuantLinear(ExportedLinear):
    """The same with an s8 weight [K, N] and a DequantizeLinear over its output channels, axis 1."""

    weight_scale: Tensor

    def __init__(self, stored: StoredWeight, bias: Tensor | None, operators: Operators) -> None:
        super().__init__(stored.integers, bias)
        self.register_buffer("weight_scale", stored.scale)
        self.operators = operators

    def _weight(self) -> Tensor:
        return self.operators.dequantize(
            self.weight, self.weight_scale, 1 if self.weight_scale.ndim else None
        )


@dataclass(frozen=True, eq=False)
class Exportable:
    """The module that is traced in a model's place, and the graph's names of its stored weights.

    names: of tensors of the module, to the names that they are to have in the file. transposed: the tensors
    that it holds as [in, out].
    """

    module: nn.Module
    names: Mapping[str, str]
    transposed: frozenset[str]


def exportable(model: nn.Module, inputs: Mapping[str, Tensor], exporter: Exporter) -> Exportable:
    """A copy of the model in evaluation mode that traces to Q/DQ; raises as `stored_weights` does."""
    root = nn.ModuleDict({"model": copied(model, COPIED).eval()})
    clone, operators = root["model"], OPERATORS[exporter]
    weights = stored_weights(clone, inputs)
    _report_float(clone)
    linears = {
        name: layer for name, layer in clone.named_modules() if type(layer) in (nn.Linear, QuantLinear)
    }
    _replace(
        root,
        {id(layer): _linear(layer, weights.get(_join(name, "weight_quantizer")), operators)
         for name, layer in linears.items()},
    )  # fmt: skip
    _replace(root, {id(q): _exported(q, name, weights, operators) for name, q in quantizers(clone).items()})
    names = {**_first_names(clone), **_names(weights)}
    return Exportable(root["model"], names, frozenset(_join(name, "weight") for name in linears))


def _join(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _replace(root: nn.Module, replaced: Mapping[int, nn.Module]) -> None:
    """Put other modules in the place of those with the given ids, wherever they stand."""
    for module in list(root.modules()):
        for name, child in list(module._modules.items()):
            if id(child) in replaced:
                setattr(module, name, replaced[id(child)])


def _first_names(model: nn.Module) -> dict[str, str]:
    """The tensors of quantizers that stand in several places, by all their names, to the first."""
    first = {id(module): name for name, module in model.named_modules()}
    return {
        f"{name}.{part}": f"{first[id(module)]}.{part}"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, ExportedQuantizer) and first[id(module)] != name
        for part in ("scale", "zero_point")
    }


def _names(weights: Mapping[str, StoredWeight]) -> dict[str, str]:
    """What the file calls stored weights: their parameters' names, an attention's projections numbered."""
    return {
        f"{quantizer}{part}.{tensor}": f"{stored.name}{number}{suffix}"
        for quantizer, stored in weights.items()
        if stored.name != quantizer
        for part, number in (("", ""), *((f".parts.{i}", f".{i}") for i in range(THIRDS)))
        for tensor, suffix in (("integers", ""), ("scale", "_scale"))
    }


def _exported(
    quantizer: FakeQuantize, name: str, weights: Mapping[str, StoredWeight], operators: Operators
) -> nn.Module:
    if quantizer.mode == "disabled":
        return nn.Identity()
    if rounds_weight(quantizer):
        return _weight(name, weights[name], operators) if name in weights else nn.Identity()
    return ExportedQuantizer(quantizer, operators)


def _weight(quantizer: str, stored: StoredWeight, operators: Operators) -> nn.Module:
    if quantizer.rpartition(".")[2] == IN_PROJECTION:
        return ExportedProjections(stored, operators)
    return ExportedWeight(stored, operators)


def _linear(layer: nn.Linear, stored: StoredWeight | None, operators: Operators) -> ExportedLinear:
    if not isinstance(layer, QuantLinear):
        return ExportedLinear(layer.weight, layer.bias)
    exported = (
        ExportedLinear(layer.migrated_weight(), layer.bias)
        if stored is None
        else ExportedQuantLinear(stored, layer.bias, operators)
    )
    exported.multiplier = layer.input_multiplier
    exported.input_quantizer = layer.input_quantizer or nn.Identity()
    exported.output_quantizer = layer.output_quantizer or nn.Identity()
    return exported


def _report_float(model: nn.Module) -> None:
    """Say which quantizers are switched off: nothing goes out in float unsaid."""
    off = [name for name, quantizer in quantizers(model).items() if quantizer.mode == "disabled"]
    if off:
        logger.warning("Exported in float, because their quantizers are disabled: %s.", ", ".join(off))
