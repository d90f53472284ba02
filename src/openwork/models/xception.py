"""Xception for images, in plain torch.

Submodule and parameter names follow the published ports to torch (`block1.rep.0.pointwise.weight`,
`block2.skipbn.running_var`, `fc.weight`, ...), so their tensors load without renaming. Source: Chollet 2017,
"Xception: Deep Learning with Depthwise Separable Convolutions".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.models.blocks import Window, initialize, small_normal


@dataclass(frozen=True)
class XceptionConfig:
    """The sizes of an Xception.

    Args:
        stem: Output channels of the two first convolutions.
        entry: Output channels of the blocks of the entry flow, each of which halves height and width.
        middle: Blocks of the middle flow, which keep their channels.
        exit: Output channels of the last block and of the two convolutions behind it.
        inputs: Channels of the image.
        classes: Outputs of the last layer.

    Raises:
        ValueError: Where a size is not positive; `middle` may be 0.
    """

    stem: tuple[int, int] = (32, 64)
    entry: tuple[int, ...] = (128, 256, 728)
    middle: int = 8
    exit: tuple[int, int, int] = (1024, 1536, 2048)
    inputs: int = 3
    classes: int = 1000

    def __post_init__(self) -> None:
        sizes = (*self.stem, *self.entry, *self.exit, self.inputs, self.classes)
        if not self.entry or min(sizes) < 1 or self.middle < 0:
            raise ValueError(f"every size of an Xception must be positive, but this is {self}.")


class SeparableConvolution(nn.Module):
    """A 3x3 filter of each channel by itself (`conv1`), then a 1x1 convolution (`pointwise`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Window(3, groups=inputs).convolution(inputs, inputs)
        self.pointwise = Window().convolution(inputs, outputs)

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.pointwise(self.conv1(states))
        return made


@dataclass(frozen=True)
class Flow:
    """A block: its channels in order, the stride of the pooling at its end, whether a ReLU begins it."""

    channels: tuple[int, ...]
    stride: int
    active: bool = True


class Block(nn.Module):
    """Separable convolutions with a ReLU before and a norm behind each, and its input added."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        first, last = flow.channels[0], flow.channels[-1]
        changes = flow.stride != 1 or first != last
        self.skip = Window(1, flow.stride).convolution(first, last) if changes else None
        self.skipbn = nn.BatchNorm2d(last) if changes else None
        parts: list[nn.Module] = []
        for inputs, outputs in zip(flow.channels, flow.channels[1:], strict=False):
            parts += [nn.ReLU(), SeparableConvolution(inputs, outputs), nn.BatchNorm2d(outputs)]
        pool = [] if flow.stride == 1 else [nn.MaxPool2d(3, flow.stride, 1)]
        self.rep = nn.Sequential(*(parts if flow.active else parts[1:]), *pool)

    def forward(self, states: Tensor) -> Tensor:
        shortcut = states
        if self.skip is not None and self.skipbn is not None:
            shortcut = self.skipbn(self.skip(states))
        summed: Tensor = self.rep(states) + shortcut
        return summed


class Xception(nn.Module):
    """Two convolutions, blocks `block1`, `block2`, ..., two separable convolutions, the mean, a Linear `fc`.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: XceptionConfig) -> None:
        super().__init__()
        self.config = config
        first, second = config.stem
        self.conv1 = nn.Conv2d(config.inputs, first, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        flows = _flows(config)
        self.blocks = len(flows)
        for number, flow in enumerate(flows, 1):
            self.add_module(f"block{number}", Block(flow))
        wide, third, fourth = config.exit
        self.conv3 = SeparableConvolution(wide, third)
        self.bn3 = nn.BatchNorm2d(third)
        self.conv4 = SeparableConvolution(third, fourth)
        self.bn4 = nn.BatchNorm2d(fourth)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(fourth, config.classes)
        initialize(self, small_normal)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        states = self.relu(self.bn1(self.conv1(images)))
        states = self.relu(self.bn2(self.conv2(states)))
        for number in range(1, self.blocks + 1):
            states = self.get_submodule(f"block{number}")(states)
        states = self.relu(self.bn3(self.conv3(states)))
        states = self.relu(self.bn4(self.conv4(states)))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(states), 1))
        return scores


def _flows(config: XceptionConfig) -> list[Flow]:
    """The blocks of the entry, middle and exit flows."""
    flows, channels = [], config.stem[1]
    for index, outputs in enumerate(config.entry):
        flows.append(Flow((channels, outputs, outputs), stride=2, active=index > 0))
        channels = outputs
    flows += [Flow((channels,) * 4, stride=1)] * config.middle
    return [*flows, Flow((channels, channels, config.exit[0]), stride=2)]


def xception(classes: int = 1000) -> Xception:
    """Xception for ImageNet (images of 299x299), with random weights."""
    return Xception(XceptionConfig(classes=classes))
