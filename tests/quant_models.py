"""Small models for the tests of quantization."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from openwork.models.resnet import ResNet, ResNetConfig


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with BatchNorms that do something: statistics and weights of either sign drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                module.weight.normal_(0.5, 0.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model


def small_resnet(seed: int = 0) -> nn.Module:
    """Two residual stages with a downsampling one, in evaluation mode."""
    torch.manual_seed(seed)
    return lively(ResNet(ResNetConfig("basic", (1, 1), (8, 16), stem="small")), seed).eval()


def images(count: int = 3, batch: int = 4, channels: int = 3, seed: int = 1) -> list[Tensor]:
    """Batches of 8 x 8 images."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, 8, 8, generator=generator) for _ in range(count)]


class InPlace(nn.Module):
    """A block as torchvision writes it: in-place additions and activations, one ReLU for both."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.conv1(x)
        out = self.bn1(out)
        out = self.relu(out)
        out = self.conv2(out)
        out = self.bn2(out)
        out += identity
        return self.relu(out)


class Functional(nn.Module):
    """Layers as functions of parameters, with a dropout that depends on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 3, 3, 3) / 5)
        self.matrix = nn.Parameter(torch.randn(5, 6) / 3)
        self.table = nn.Parameter(torch.randn(5, 4))
        self.scale = 0.5

    def forward(self, x: Tensor, double: bool = False) -> Tensor:
        x = functional.conv2d(x, self.kernel, padding=1).relu()
        batch = x.shape[0]
        x = functional.dropout(x.mean(dim=(2, 3)), 0.5, self.training)
        x = functional.linear(x.view(batch, -1), self.matrix) * self.scale
        x = x @ self.table
        return x * 2 if double else x


class Attention(nn.Module):
    """Fused attention with a residual addition around it."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        split = self.qkv(self.norm(x)).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = split
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
