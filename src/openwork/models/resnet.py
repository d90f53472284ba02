"""ResNet and ResNeXt for images, in plain torch.

Submodule and parameter names follow the published checkpoints (`layer1.0.conv1.weight`,
`layer2.0.downsample.1.running_mean`, ...), so their tensors load without renaming. The bottleneck strides in
its 3x3 convolution ("v1.5"), as those checkpoints do. Source: He et al. 2016, "Deep Residual Learning for
Image Recognition"; Xie et al. 2017, "Aggregated Residual Transformations for Deep Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

BlockKind = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "small"]

_BOTTLENECK_EXPANSION = 4
_REFERENCE_WIDTH = 64


@dataclass(frozen=True)
class ResNetConfig:
    """The sizes of a ResNet.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1; 4 times the width comes out).
        blocks: Residual blocks per stage; every stage but the first halves height and width.
        widths: Channels of each stage's 3x3 convolutions for `groups=1`, `width_per_group=64`.
        stem: "imagenet" (7x7 of stride 2, then max pooling) or "small" (3x3 of stride 1, for images of up to
            64 pixels).
        inputs: Channels of the image.
        classes: Outputs of the last layer.
        groups: Groups of the bottleneck's 3x3 convolution (ResNeXt's cardinality).
        width_per_group: Channels of each group in a stage whose width is 64.

    Raises:
        ValueError: For sizes that are not positive, stages without a width, a basic block with groups, or a
            stage too narrow for its groups.
    """

    block: BlockKind
    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "imagenet"
    inputs: int = 3
    classes: int = 1000
    groups: int = 1
    width_per_group: int = _REFERENCE_WIDTH

    def __post_init__(self) -> None:
        sizes = (*self.blocks, *self.widths, self.inputs, self.classes, self.groups, self.width_per_group)
        if not self.blocks or min(sizes) < 1:
            raise ValueError(f"every size of a ResNet must be positive, but this is {self}.")
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"blocks and widths must name the same stages, but there are {len(self.blocks)} and "
                f"{len(self.widths)}."
            )
        if self.block not in ("basic", "bottleneck") or self.stem not in ("imagenet", "small"):
            raise ValueError(
                "block must be 'basic' or 'bottleneck' and stem 'imagenet' or 'small', but they are "
                f"{self.block!r} and {self.stem!r}."
            )
        if self.block == "basic" and (self.groups, self.width_per_group) != (1, _REFERENCE_WIDTH):
            raise ValueError("groups and width_per_group belong to bottleneck blocks, but these are basic.")
        if min(map(self.inner_width, self.widths)) < 1:
            raise ValueError(
                f"a stage of width {min(self.widths)} is too narrow for width_per_group "
                f"{self.width_per_group}: its groups would have no channels."
            )

    @property
    def expansion(self) -> int:
        """Output channels of a block for each channel of its stage's width."""
        return 1 if self.block == "basic" else _BOTTLENECK_EXPANSION

    def inner_width(self, width: int) -> int:
        """Channels of the 3x3 convolution in a stage of `width`: width * width_per_group / 64 * groups."""
        return width * self.width_per_group // _REFERENCE_WIDTH * self.groups


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """relu(bn(conv3x3(relu(bn(conv3x3(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, states: Tensor) -> Tensor:
        shortcut = states if self.downsample is None else self.downsample(states)
        inner = self.relu(self.bn1(self.conv1(states)))
        summed: Tensor = self.relu(self.bn2(self.conv2(inner)) + shortcut)
        return summed


class Bottleneck(nn.Module):
    """relu(bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))) + shortcut(x)); the 3x3 may have groups."""

    def __init__(self, inputs: int, outputs: int, inner: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(inner, inner, 3, stride, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, states: Tensor) -> Tensor:
        shortcut = states if self.downsample is None else self.downsample(states)
        inner = self.relu(self.bn1(self.conv1(states)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        summed: Tensor = self.relu(self.bn3(self.conv3(inner)) + shortcut)
        return summed


def _block(config: ResNetConfig, inputs: int, width: int, stride: int) -> nn.Module:
    if config.block == "basic":
        return BasicBlock(inputs, width, stride)
    return Bottleneck(inputs, width * config.expansion, config.inner_width(width), stride, config.groups)


def _stage(config: ResNetConfig, inputs: int, stage: int) -> nn.Sequential:
    width, outputs = config.widths[stage], config.widths[stage] * config.expansion
    first = _block(config, inputs, width, stride=1 if stage == 0 else 2)
    rest = [_block(config, outputs, width, stride=1) for _ in range(config.blocks[stage] - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """A stem, residual stages `layer1`, `layer2`, ..., the mean over height and width, and a Linear `fc`.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        imagenet = config.stem == "imagenet"
        channels = config.widths[0]
        self.conv1 = _convolution(config.inputs, channels, 7 if imagenet else 3, 2 if imagenet else 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        for stage, width in enumerate(config.widths):
            self.add_module(f"layer{stage + 1}", _stage(config, channels, stage))
            channels = width * config.expansion
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, config.classes)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        states = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(len(self.config.widths)):
            states = self.get_submodule(f"layer{stage + 1}")(states)
        scores: Tensor = self.fc(torch.flatten(self.avgpool(states), 1))
        return scores


def resnet18(classes: int = 1000) -> ResNet:
    """ResNet-18 for ImageNet, with random weights."""
    return ResNet(ResNetConfig("basic", (2, 2, 2, 2), classes=classes))


def resnet34(classes: int = 1000) -> ResNet:
    """ResNet-34 for ImageNet, with random weights."""
    return ResNet(ResNetConfig("basic", (3, 4, 6, 3), classes=classes))


def resnet50(classes: int = 1000) -> ResNet:
    """ResNet-50 (v1.5) for ImageNet, with random weights."""
    return ResNet(ResNetConfig("bottleneck", (3, 4, 6, 3), classes=classes))


def resnext50(classes: int = 1000) -> ResNet:
    """ResNeXt-50 32x4d for ImageNet, with random weights."""
    return ResNet(ResNetConfig("bottleneck", (3, 4, 6, 3), classes=classes, groups=32, width_per_group=4))


def resnext101_32x8d(classes: int = 1000) -> ResNet:
    """ResNeXt-101 32x8d for ImageNet, with random weights."""
    return ResNet(ResNetConfig("bottleneck", (3, 4, 23, 3), classes=classes, groups=32, width_per_group=8))


def small_resnet(classes: int = 10, inputs: int = 1, widths: tuple[int, ...] = (32, 64)) -> ResNet:
    """A ResNet of one basic block per width, for images of about 8x8 pixels, with random weights."""
    return ResNet(ResNetConfig("basic", (1,) * len(widths), widths, "small", inputs, classes))
