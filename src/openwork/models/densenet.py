"""DenseNet for images, in plain torch.

Submodule and parameter names follow the published checkpoints in their newer form
(`features.denseblock1.denselayer2.conv1.weight`, ...), so their tensors load without renaming. Source: Huang
et al. 2017, "Densely Connected Convolutional Networks" (DenseNet-BC).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.models.blocks import Window


@dataclass(frozen=True)
class DenseNetConfig:
    """The sizes of a DenseNet.

    Args:
        blocks: Layers of each dense block.
        growth: Channels that each layer adds.
        bottleneck: Channels of a layer's 1x1 convolution for each of `growth`.
        stem: Output channels of the first convolution.
        inputs: Channels of the image.
        classes: Outputs of the last layer.

    Raises:
        ValueError: Where there is no block, or a size is not positive.
    """

    blocks: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    bottleneck: int = 4
    stem: int = 64
    inputs: int = 3
    classes: int = 1000

    def __post_init__(self) -> None:
        sizes = (*self.blocks, self.growth, self.bottleneck, self.stem, self.inputs, self.classes)
        if not self.blocks or min(sizes) < 1:
            raise ValueError(f"every size of a DenseNet must be positive, but this is {self}.")


class DenseLayer(nn.Module):
    """conv3x3(relu(bn(conv1x1(relu(bn(everything before in its block))))))."""

    def __init__(self, inputs: int, config: DenseNetConfig) -> None:
        super().__init__()
        inner = config.bottleneck * config.growth
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = Window().convolution(inputs, inner)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv2 = Window(3).convolution(inner, config.growth)

    def forward(self, before: list[Tensor]) -> Tensor:
        inner = self.conv1(self.relu1(self.norm1(torch.cat(before, 1))))
        added: Tensor = self.conv2(self.relu2(self.norm2(inner)))
        return added


class DenseBlock(nn.ModuleDict):
    """Layers `denselayer1`, `denselayer2`, ..., each of which reads what all before it gave."""

    def __init__(self, inputs: int, count: int, config: DenseNetConfig) -> None:
        super().__init__()
        for index in range(count):
            self[f"denselayer{index + 1}"] = DenseLayer(inputs + index * config.growth, config)

    def forward(self, states: Tensor) -> Tensor:
        """The states [N, inputs, H, W] with what each layer adds: [N, inputs + count * growth, H, W]."""
        parts = [states]
        for layer in self.values():
            parts.append(layer(parts))
        return torch.cat(parts, 1)


class Transition(nn.Sequential):
    """Between two blocks: a 1x1 convolution to half of the channels, and the mean of 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.conv = Window().convolution(inputs, outputs)
        self.pool = nn.AvgPool2d(2, 2)


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, the mean over height and width, and a Linear.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: DenseNetConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.stem
        self.features = nn.Sequential()
        self.features.add_module("conv0", Window(7, 2).convolution(config.inputs, channels))
        self.features.add_module("norm0", nn.BatchNorm2d(channels))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, padding=1))
        for number, count in enumerate(config.blocks, 1):
            self.features.add_module(f"denseblock{number}", DenseBlock(channels, count, config))
            channels += count * config.growth
            if number < len(config.blocks):
                self.features.add_module(f"transition{number}", Transition(channels, channels // 2))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, config.classes)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        states = nn.functional.relu(self.features(images))
        means = nn.functional.adaptive_avg_pool2d(states, 1)
        scores: Tensor = self.classifier(torch.flatten(means, 1))
        return scores


def densenet121(classes: int = 1000) -> DenseNet:
    """DenseNet-121 for ImageNet, with random weights."""
    return DenseNet(DenseNetConfig(classes=classes))
