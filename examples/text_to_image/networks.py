"""The networks of the example: text encoder and UNet together, and the classifier that judges pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openwork.models.text_encoder import TextEncoder
from openwork.models.unet import UNet, UNetConfig

from .glyphs import GLYPHS
from .settings import SEED, TEXT


class Painter(nn.Module):
    """A text encoder and the UNet that reads it; they are trained together."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.text = TextEncoder(TEXT)
        self.unet = UNet(config)

    def forward(self, states: Tensor, times: Tensor, ids: Tensor) -> Tensor:
        """The noise in folded pictures, given the captions' ids."""
        noise: Tensor = self.unet(states, times, self.text(ids))
        return noise


def new_painter(config: UNetConfig) -> Painter:
    """A painter with its first weights, the same ones each time; the last convolution says nothing yet."""
    torch.manual_seed(SEED)
    made = Painter(config)
    nn.init.zeros_(made.unet.conv_out.weight)
    return made


def new_classifier() -> nn.Module:
    """The scores of each glyph, [B, glyphs], of pictures [B, 3, SIDE, SIDE]."""
    torch.manual_seed(SEED)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(96 * 16, len(GLYPHS)))
