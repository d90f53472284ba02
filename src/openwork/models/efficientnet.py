"""EfficientNet for images, in plain torch.

Submodule and parameter names follow the published checkpoints (`features.2.0.block.2.fc1.weight`, ...), so
their tensors load without renaming. Source: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for
Convolutional Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.models.blocks import (
    Bottleneck,
    InvertedBottleneck,
    Kinds,
    Norm,
    Window,
    initialize,
    normed_convolution,
)

Stage = tuple[int, int, int, int, int]
"""Factor of expansion, kernel, stride of the first block, output channels, blocks."""

_B0: tuple[Stage, ...] = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_KINDS = Kinds(nn.SiLU, nn.SiLU, nn.Sigmoid, Norm())


@dataclass(frozen=True)
class EfficientNetConfig:
    """The sizes of an EfficientNet.

    Args:
        stages: Of each stage factor of expansion, kernel, stride, output channels and blocks.
        stem: Output channels of the first convolution.
        last: Output channels of the last convolution.
        inputs: Channels of the image.
        classes: Outputs of the last layer.
        dropout: Before the last layer, in training.
        stochastic_depth: Probability at the end of the network that a block is left out, in training; it
            grows from 0 at its beginning.

    Raises:
        ValueError: Where there is no stage, or a size is not positive.
    """

    stages: tuple[Stage, ...] = _B0
    stem: int = 32
    last: int = 1280
    inputs: int = 3
    classes: int = 1000
    dropout: float = 0.2
    stochastic_depth: float = 0.2

    def __post_init__(self) -> None:
        sizes = [size for stage in self.stages for size in stage]
        if not sizes or min(*sizes, self.stem, self.last, self.inputs, self.classes) < 1:
            raise ValueError(f"every size of an EfficientNet must be positive, but this is {self}.")

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(stage[-1] for stage in self.stages)


class EfficientNet(nn.Module):
    """A stem, stages of inverted bottlenecks, a 1x1 convolution, the mean over height and width, a Linear.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        parts = [normed_convolution(config.inputs, config.stem, Window(3, 2), _KINDS.norm, nn.SiLU)]
        channels, before = config.stem, 0
        for stage in config.stages:
            parts.append(_stage(config, stage, channels, before))
            channels, before = stage[3], before + stage[4]
        parts.append(normed_convolution(channels, config.last, Window(), _KINDS.norm, nn.SiLU))
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.last, config.classes))
        initialize(self, _by_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        means = self.avgpool(self.features(images))
        scores: Tensor = self.classifier(torch.flatten(means, 1))
        return scores


def _stage(config: EfficientNetConfig, stage: Stage, channels: int, before: int) -> nn.Sequential:
    """The blocks of a stage that reads `channels`, with `before` blocks in front of it."""
    factor, kernel, stride, outputs, count = stage
    blocks: list[nn.Module] = []
    for index in range(count):
        dropped = config.stochastic_depth * (before + index) / config.depth
        squeezed, step = max(1, channels // 4), stride if index == 0 else 1
        sizes = Bottleneck(channels, channels * factor, outputs, kernel, step, squeezed, dropped)
        blocks.append(InvertedBottleneck(sizes, _KINDS))
        channels = outputs
    return nn.Sequential(*blocks)


def _by_outputs(layer: nn.Linear) -> None:
    bound = layer.out_features**-0.5
    nn.init.uniform_(layer.weight, -bound, bound)


def efficientnet_b0(classes: int = 1000) -> EfficientNet:
    """EfficientNet-B0 for ImageNet, with random weights."""
    return EfficientNet(EfficientNetConfig(classes=classes))
