"""MobileNetV2 and MobileNetV3 for images, in plain torch.

Submodule and parameter names follow the published checkpoints (`features.1.conv.0.0.weight`,
`features.4.block.2.fc1.bias`, ...), so their tensors load without renaming. Sources: Sandler et al. 2018,
"MobileNetV2: Inverted Residuals and Linear Bottlenecks"; Howard et al. 2019, "Searching for MobileNetV3".
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
    divisible,
    initialize,
    normed_convolution,
    small_normal,
)

Stage2 = tuple[int, int, int, int]
"""Factor of expansion, output channels, blocks, stride of the first one."""
Block3 = tuple[int, int, int, bool, bool, int]
"""Kernel, expanded and output channels, squeeze-and-excitation, Hardswish (else ReLU), stride."""

_V2: tuple[Stage2, ...] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_V3_LARGE: tuple[Block3, ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_V3_SMALL: tuple[Block3, ...] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)


@dataclass(frozen=True)
class MobileNetV2Config:
    """The sizes of a MobileNetV2.

    Args:
        stages: Of each stage factor of expansion, output channels, blocks and stride.
        stem: Output channels of the first convolution.
        last: Output channels of the last convolution.
        inputs: Channels of the image.
        classes: Outputs of the last layer.
        dropout: Before the last layer, in training.

    Raises:
        ValueError: Where there is no stage, or a size is not positive.
    """

    stages: tuple[Stage2, ...] = _V2
    stem: int = 32
    last: int = 1280
    inputs: int = 3
    classes: int = 1000
    dropout: float = 0.2

    def __post_init__(self) -> None:
        sizes = [size for stage in self.stages for size in stage]
        if not sizes or min(*sizes, self.stem, self.last, self.inputs, self.classes) < 1:
            raise ValueError(f"every size of a MobileNetV2 must be positive, but this is {self}.")


class InvertedResidual(nn.Module):
    """Expands by 1x1, filters each channel by itself, projects by 1x1; adds its input where it fits."""

    def __init__(self, inputs: int, outputs: int, factor: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        inner, norm = inputs * factor, Norm()
        first = [] if factor == 1 else [normed_convolution(inputs, inner, Window(), norm, nn.ReLU6)]
        self.conv = nn.Sequential(
            *first,
            normed_convolution(inner, inner, Window(3, stride, inner), norm, nn.ReLU6),
            Window().convolution(inner, outputs),
            norm(outputs),
        )

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.conv(states)
        return states + made if self.adds else made


class MobileNetV2(nn.Module):
    """A stem, inverted residuals, a 1x1 convolution, the mean over height and width, and a Linear.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__()
        self.config = config
        channels = config.stem
        parts: list[nn.Module] = [normed_convolution(config.inputs, channels, Window(3, 2), Norm(), nn.ReLU6)]
        for factor, outputs, blocks, stride in config.stages:
            for block in range(blocks):
                parts.append(InvertedResidual(channels, outputs, factor, stride if block == 0 else 1))
                channels = outputs
        parts.append(normed_convolution(channels, config.last, Window(), Norm(), nn.ReLU6))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.last, config.classes))
        initialize(self, small_normal)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        means = nn.functional.adaptive_avg_pool2d(self.features(images), 1)
        scores: Tensor = self.classifier(torch.flatten(means, 1))
        return scores


@dataclass(frozen=True)
class MobileNetV3Config:
    """The sizes of a MobileNetV3.

    Args:
        blocks: Of each block kernel, expanded and output channels, whether it has squeeze-and-excitation,
            whether Hardswish (else ReLU), and stride.
        hidden: Outputs of the Linear before the last one.
        stem: Output channels of the first convolution.
        inputs: Channels of the image.
        classes: Outputs of the last layer.
        dropout: Before the last layer, in training.

    Raises:
        ValueError: Where there is no block, or a size is not positive.
    """

    blocks: tuple[Block3, ...] = _V3_LARGE
    hidden: int = 1280
    stem: int = 16
    inputs: int = 3
    classes: int = 1000
    dropout: float = 0.2

    def __post_init__(self) -> None:
        sizes = [
            size
            for kernel, inner, outputs, _, _, stride in self.blocks
            for size in (kernel, inner, outputs, stride)
        ]
        if not sizes or min(*sizes, self.hidden, self.stem, self.inputs, self.classes) < 1:
            raise ValueError(f"every size of a MobileNetV3 must be positive, but this is {self}.")


_V3_KINDS = Kinds(nn.ReLU, nn.ReLU, nn.Hardsigmoid, Norm(0.001, 0.01))
_LAST_EXPANSION = 6


class MobileNetV3(nn.Module):
    """A stem, inverted bottlenecks, a 1x1 convolution, the mean over height and width, and two Linears.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: MobileNetV3Config) -> None:
        super().__init__()
        self.config = config
        norm, channels = _V3_KINDS.norm, config.stem
        stem = normed_convolution(config.inputs, channels, Window(3, 2), norm, nn.Hardswish)
        parts: list[nn.Module] = [stem]
        for kernel, inner, outputs, squeezes, hardswish, stride in config.blocks:
            squeezed = divisible(inner // 4) if squeezes else 0
            sizes = Bottleneck(channels, inner, outputs, kernel, stride, squeezed)
            parts.append(InvertedBottleneck(sizes, _V3_KINDS, nn.Hardswish if hardswish else nn.ReLU))
            channels = outputs
        last = _LAST_EXPANSION * channels
        parts.append(normed_convolution(channels, last, Window(), norm, nn.Hardswish))
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(last, config.hidden),
            nn.Hardswish(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.classes),
        )
        initialize(self, small_normal)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        means = self.avgpool(self.features(images))
        scores: Tensor = self.classifier(torch.flatten(means, 1))
        return scores


def mobilenet_v2(classes: int = 1000) -> MobileNetV2:
    """MobileNetV2 for ImageNet, with random weights."""
    return MobileNetV2(MobileNetV2Config(classes=classes))


def mobilenet_v3_large(classes: int = 1000) -> MobileNetV3:
    """MobileNetV3-Large for ImageNet, with random weights."""
    return MobileNetV3(MobileNetV3Config(classes=classes))


def mobilenet_v3_small(classes: int = 1000) -> MobileNetV3:
    """MobileNetV3-Small for ImageNet, with random weights."""
    return MobileNetV3(MobileNetV3Config(_V3_SMALL, hidden=1024, classes=classes))
