"""Layers with a weight, fake-quantized: the very classes of torch with quantizers on what they multiply.

Their `forward` names its arguments as torch's does, so that a batch by name fits the layer after as before.

A layer becomes quantized by changing its class, so that it stays the object that a pruner, an optimizer's
hooks or a parent module hold on to; its parameters and buffers keep their names in the `state_dict`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize, Learned

MASK_SUFFIX = "_mask"


def masked(module: nn.Module, parameter: str) -> Tensor:
    """The parameter with exact zeros where its mask, the buffer `<parameter>_mask`, drops it.

    The gradient passes as if there were no mask: whoever trains decides what becomes of dropped weights.
    """
    weight: Tensor = getattr(module, parameter)
    mask = module._buffers.get(parameter + MASK_SUFFIX)
    return weight if mask is None else weight - (weight * ~mask).detach()


def check_mask(module: nn.Module, parameter: str, name: str) -> None:
    """Raise ValueError if the parameter is not zero where its mask drops it, naming the first such place."""
    weight, mask = getattr(module, parameter), module._buffers.get(parameter + MASK_SUFFIX)
    alive = torch.zeros(0) if mask is None else ((weight != 0) & ~mask).nonzero()
    if len(alive):
        place = alive[0].tolist()
        where = f"row {place[0]}, column {place[1]}" if len(place) == 2 else str(place)
        raise ValueError(
            f"{name}: the {parameter} at {where} is not zero though its mask drops it ({len(alive)} such "
            "weights); apply the masks, with `Pruner.apply`, before quantizing."
        )


def _typed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in a type; a conversion to its own would stand in an exported graph."""
    return x if x.dtype == dtype else x.to(dtype)


class Quantized(nn.Module):
    """What the quantized layers share; abstract.

    y = layer(Q(x * m), Q(weight / m)) + bias, then Q(y) where there is an `output_quantizer`. weight: f32,
    stays a float parameter. input_multiplier: m, f32 [K], or None for 1 (see `migration`). A quantizer that
    is None leaves its tensor in float.
    """

    CHANNELS: ClassVar[int] = 0
    """The axis of the weight that holds the output channels."""

    weight: Tensor
    input_quantizer: FakeQuantize | None
    weight_quantizer: FakeQuantize
    output_quantizer: FakeQuantize | None
    input_multiplier: Tensor | None

    def migrated_weight(self) -> Tensor:
        """The weight that is quantized: masked, and divided by the input's multiplier."""
        weight = masked(self, "weight")
        return weight if self.input_multiplier is None else weight / self.input_multiplier

    def quantized_weight(self) -> Tensor:
        """The integers of the weight, s8 of its shape."""
        return self.weight_quantizer.integers(self.migrated_weight().detach())

    def _input(self, x: Tensor) -> Tensor:
        # A multiplier, float32 as scales are, widens what it multiplies; the layer's own type comes last.
        scaled = x if self.input_multiplier is None else x * self.input_multiplier
        rounded: Tensor = scaled if self.input_quantizer is None else self.input_quantizer(scaled)
        return _typed(rounded, x.dtype)

    def _weight(self) -> Tensor:
        rounded: Tensor = self.weight_quantizer(self.migrated_weight())
        return _typed(rounded, self.weight.dtype)

    def _output(self, y: Tensor) -> Tensor:
        return y if self.output_quantizer is None else self.output_quantizer(y)


class QuantLinear(Quantized, nn.Linear):
    """`nn.Linear` with its input and its weight [N, K] rounded."""

    def forward(self, input: Tensor) -> Tensor:
        return self._output(functional.linear(self._input(input), self._weight(), self.bias))


class _QuantConv(Quantized):
    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self._input(input), self._weight(), self.bias)  # type: ignore[operator]
        return self._output(y)


class QuantConv1d(_QuantConv, nn.Conv1d):
    """`nn.Conv1d` with its input and its weight [N, K / groups, taps] rounded."""


class QuantConv2d(_QuantConv, nn.Conv2d):
    """`nn.Conv2d` with its input and its weight [N, K / groups, kh, kw] rounded."""


class QuantConv3d(_QuantConv, nn.Conv3d):
    """`nn.Conv3d` with its input and its weight [N, K / groups, kd, kh, kw] rounded."""


class _QuantConvTranspose(Quantized):
    """The weight is [K, N / groups, ...]; the groups share the scales, one for each place in a group."""

    CHANNELS: ClassVar[int] = 1
    DIMENSIONS: ClassVar[int]

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        layer: Any = self
        padding = layer._output_padding(
            input,
            output_size,
            layer.stride,
            layer.padding,
            layer.kernel_size,
            self.DIMENSIONS,
            layer.dilation,
        )
        transposed = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)
        form = (layer.stride, layer.padding, padding, layer.groups, layer.dilation)
        y: Tensor = transposed[self.DIMENSIONS - 1](self._input(input), self._weight(), layer.bias, *form)
        return self._output(y)


class QuantConvTranspose1d(_QuantConvTranspose, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with its input and its weight rounded."""

    DIMENSIONS = 1


class QuantConvTranspose2d(_QuantConvTranspose, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with its input and its weight rounded."""

    DIMENSIONS = 2


class QuantConvTranspose3d(_QuantConvTranspose, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with its input and its weight rounded."""

    DIMENSIONS = 3


class QuantEmbedding(nn.Embedding):
    """`nn.Embedding` whose output is rounded; the table stays float."""

    output_quantizer: FakeQuantize | None

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = super().forward(input)
        return y if self.output_quantizer is None else self.output_quantizer(y)


QUANTIZED: dict[type[nn.Module], type[Quantized]] = {
    nn.Linear: QuantLinear,
    nn.Conv1d: QuantConv1d,
    nn.Conv2d: QuantConv2d,
    nn.Conv3d: QuantConv3d,
    nn.ConvTranspose1d: QuantConvTranspose1d,
    nn.ConvTranspose2d: QuantConvTranspose2d,
    nn.ConvTranspose3d: QuantConvTranspose3d,
}
"""The quantized class of each layer with a weight."""


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is one of this package's quantized layers."""
    return isinstance(module, (Quantized, QuantEmbedding))


def quantize_layer(layer: nn.Module, name: str, learned: Learned = "no") -> Quantized:
    """Make the layer the quantized one of its kind, in place, its weight's scales max |w| / 127 per channel.

    name: the layer, for messages. learned: the weight's scales become parameters (see `FakeQuantize`). The
    input's and the output's quantizers are left None. Raises ValueError for another kind of layer, if the
    weight holds NaN or infinity, naming the channel, and if it breaks its mask.
    """
    target = next((q for cls, q in QUANTIZED.items() if isinstance(layer, cls)), None)
    if target is None or is_quantized(layer):
        raise ValueError(
            f"{name} must be a float Linear, Conv or ConvTranspose layer to be quantized, but it is "
            f"{type(layer).__name__}."
        )
    check_mask(layer, "weight", name)
    weight = masked(layer, "weight").detach()
    quantizer = FakeQuantize.for_weight(name, weight, axis=target.CHANNELS, learned=learned)
    layer.__class__ = target
    assert isinstance(layer, Quantized)
    layer.weight_quantizer = quantizer.to(weight.device)
    layer.input_quantizer = layer.output_quantizer = None
    layer.register_buffer("input_multiplier", None)
    return layer


def quantize_embedding(layer: nn.Module) -> QuantEmbedding:
    """Make an `nn.Embedding` a `QuantEmbedding`, in place, without a quantizer as yet."""
    layer.__class__ = QuantEmbedding
    assert isinstance(layer, QuantEmbedding)
    layer.output_quantizer = None
    return layer


def migrate(layer: QuantLinear, multiplier: Tensor | None) -> None:
    """Multiply each input channel of the layer by `multiplier`, f32 [K], and divide its weight by it."""
    layer.input_multiplier = None if multiplier is None else multiplier.to(layer.weight.device)
    with torch.no_grad():
        layer.weight_quantizer.load_ranges(*_channel_range(layer))


def _channel_range(layer: Quantized) -> tuple[Tensor, Tensor]:
    rows = layer.migrated_weight().detach().flatten(1)
    return rows.amin(1), rows.amax(1)
