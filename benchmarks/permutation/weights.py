"""Random weights that are distributed as trained ones are: heavy tails, and channels of different size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Student's t with four degrees of freedom; scales of output and input channels spread by these (log-normal).
_FREEDOM, _OUTPUT_SPREAD, _INPUT_SPREAD = 4, 0.5, 0.3


def trained_like(shape: tuple[int, ...], seed: int) -> Tensor:
    """A weight f32 [out, in, ...]."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    squares = torch.zeros(shape)
    for _ in range(_FREEDOM):
        squares += torch.randn(shape, generator=generator).square()
    values = normal * (squares / _FREEDOM).rsqrt()
    tail = (1,) * (len(shape) - 2)
    values *= torch.exp(_OUTPUT_SPREAD * torch.randn((shape[0], 1, *tail), generator=generator))
    values *= torch.exp(_INPUT_SPREAD * torch.randn((1, shape[1], *tail), generator=generator))
    fan = values[0].numel()
    return values / (2 * fan) ** 0.5


@torch.no_grad()
def make_trained_like(model: nn.Module, seed: int) -> nn.Module:
    """Give all weight matrices and convolutions of a model such values."""
    for number, parameter in enumerate(model.parameters()):
        if parameter.ndim > 1:
            parameter.copy_(trained_like(tuple(parameter.shape), seed * 1000 + number))
    return model
