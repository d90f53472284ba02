"""Which axis of a tensor counts channels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def channel_axis(layer: nn.Module, x: Tensor) -> int:
    """The axis, from the front, of a Linear's or a convolution's input or output that counts its channels."""
    return x.dim() - len(layer.kernel_size) - 1 if isinstance(layer, _ConvNd) else x.dim() - 1
