"""A quantized model moved to scales on which binary32 is exact, so that two right engines agree to the bit.

With ordinary scales a sum that two engines round differently in its last bit may fall to different sides of a
rounding, and in a deep network every such difference sets off others until the two differ by as much as the
quantization itself. With scales that are powers of two and biases in units of x_scale * weight_scale every
product and sum is a multiple of one unit, exact below 2^24 units in any order, and nothing can set this off.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize
from openwork.quantization.fake_quantization.modules import Quantized


@torch.no_grad()
def move_to_exact_grid(model: nn.Module) -> None:
    """Raise every scale to a power of two, round the layers' biases to their units, freeze the quantizers."""
    layers = [module for module in model.modules() if isinstance(module, Quantized)]
    for layer in layers:
        _raise(layer.weight_quantizer, layer.migrated_weight())
    for module in model.modules():
        if isinstance(module, FakeQuantize) and module.mode == "quantizing":
            _raise(module)
    for layer in layers:
        bias = layer._parameters["bias"]
        if bias is not None and layer.input_quantizer is not None:
            unit = layer.input_quantizer.scales()[0] * layer.weight_quantizer.scales()[0]
            # A grouped transposed convolution has one scale for each place in a group.
            unit = unit.repeat(len(bias) // len(unit))
            bias.copy_((bias / unit).round() * unit)


def _raise(quantizer: FakeQuantize, weight: Tensor | None = None) -> None:
    scale, zero_point = quantizer.scales(weight)
    quantizer.load_scales(torch.exp2(torch.ceil(torch.log2(scale))), zero_point)
    quantizer.freeze()
