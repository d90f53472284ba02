"""The fake-quantized linear layer: its weight and its input rounded to the integers of the engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.quantization.affine import RANGES, WEIGHT_LIMIT, Activation, Affine, weight_scales
from openwork.quantization.search import InputQuantization


class QuantLinear(nn.Module):
    """y = Q(x * m) @ Q(weight / m).T + bias, in float, where Q quantizes and dequantizes.

    weight f32 [N, K] and bias f32 [N] (or None) stay float parameters. Buffers: weight_scale f32 [N],
    input_scale f32 [], input_zero_point i32 [], input_multiplier m f32 [K] or None for 1 (see `migration`).
    Other buffers of the layer it was made from, such as a pruning mask, are kept under their names. Rounding
    has no gradient here: this module is for inference and export.
    """

    weight_scale: Tensor
    input_scale: Tensor
    input_zero_point: Tensor
    input_multiplier: Tensor | None

    def __init__(self, linear: nn.Linear, inputs: InputQuantization, name: str) -> None:
        """Wrap `linear` (its parameters are shared), with weight scales by the largest magnitude per channel.

        name: the layer, for messages. Raises ValueError if the weight holds NaN or infinity, naming the
        channel.
        """
        super().__init__()
        activation = inputs.affine
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.activation: Activation = activation.dtype
        self.weight, self.bias = linear.weight, linear.bias
        for name, buffer in linear.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.register_buffer("input_scale", torch.tensor(activation.scale, dtype=torch.float32))
        self.register_buffer("input_zero_point", torch.tensor(activation.zero_point, dtype=torch.int32))
        self.register_buffer("input_multiplier", inputs.multiplier)
        scales = weight_scales(self.migrated_weight().cpu().numpy(), name)
        self.register_buffer("weight_scale", torch.from_numpy(scales))
        self.to(linear.weight.device).train(linear.training)

    @property
    def input_affine(self) -> Affine:
        """The affine map of the input."""
        return Affine(float(self.input_scale), int(self.input_zero_point), self.activation)

    def migrated_weight(self) -> Tensor:
        """The weight that is quantized, weight / m: f32 [N, K]."""
        weight = self.weight.detach()
        return weight if self.input_multiplier is None else weight / self.input_multiplier

    def quantized_weight(self) -> Tensor:
        """The integers of the weight: s8 [N, K]."""
        scaled = self.migrated_weight() * (1 / self.weight_scale)[:, None]
        return scaled.round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        low, high = RANGES[self.activation]
        x = x if self.input_multiplier is None else x * self.input_multiplier
        rounded = torch.fake_quantize_per_tensor_affine(x, self.input_scale, self.input_zero_point, low, high)
        return functional.linear(rounded, self.quantized_weight() * self.weight_scale[:, None], self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, input={self.input_affine}"
