"""ConvNeXt for images, in plain torch.

Submodule and parameter names follow the published checkpoints (`features.1.0.block.3.weight`,
`features.1.0.layer_scale`, ...), so their tensors load without renaming. Source: Liu et al. 2022, "A ConvNet
for the 2020s".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.models.blocks import StochasticDepth

_EPSILON = 1e-6
_EXPANSION = 4


@dataclass(frozen=True)
class ConvNeXtConfig:
    """The sizes of a ConvNeXt.

    Args:
        blocks: Blocks of each stage.
        widths: Channels of each stage; between two stages height and width are halved.
        inputs: Channels of the image.
        classes: Outputs of the last layer.
        layer_scale: What each block's output is multiplied with before training.
        stochastic_depth: Probability of the last block to be left out, in training; it grows from 0 at the
            first.

    Raises:
        ValueError: For sizes that are not positive, or stages without a width.
    """

    blocks: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    inputs: int = 3
    classes: int = 1000
    layer_scale: float = 1e-6
    stochastic_depth: float = 0.1

    def __post_init__(self) -> None:
        if not self.blocks or min(*self.blocks, *self.widths, self.inputs, self.classes) < 1:
            raise ValueError(f"every size of a ConvNeXt must be positive, but this is {self}.")
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"blocks and widths must name the same stages, but there are {len(self.blocks)} and "
                f"{len(self.widths)}."
            )

    def dropped(self, block: int) -> float:
        """The probability with which the `block`-th block, counted from 0, is left out in training."""
        return self.stochastic_depth * block / max(1, sum(self.blocks) - 1)


class Permute(nn.Module):
    """The axes in another order."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, states: Tensor) -> Tensor:
        return states.permute(self.axes)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of images [N, C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        last = input.permute(0, 2, 3, 1)
        normed = nn.functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class Block(nn.Module):
    """x + layer_scale * linear(gelu(linear(norm(depthwise 7x7 of x)))), linears over the channels."""

    def __init__(self, width: int, layer_scale: float, dropped: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width),
            Permute((0, 2, 3, 1)),
            nn.LayerNorm(width, _EPSILON),
            nn.Linear(width, _EXPANSION * width),
            nn.GELU(),
            nn.Linear(_EXPANSION * width, width),
            Permute((0, 3, 1, 2)),
        )
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), layer_scale))
        self.stochastic_depth = StochasticDepth(dropped)

    def forward(self, states: Tensor) -> Tensor:
        made = self.layer_scale * self.block(states)
        summed: Tensor = self.stochastic_depth(made) + states
        return summed


class ConvNeXt(nn.Module):
    """A 4x4 stem, stages with a halving convolution between them, the mean over pixels, norm and Linear.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ConvNeXtConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        stem = nn.Sequential(nn.Conv2d(config.inputs, first, 4, 4), ChannelNorm(first, _EPSILON))
        parts, before = [stem], 0
        for stage, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True)):
            if stage:
                wide = config.widths[stage - 1]
                parts.append(nn.Sequential(ChannelNorm(wide, _EPSILON), nn.Conv2d(wide, width, 2, 2)))
            drops = [config.dropped(before + block) for block in range(count)]
            parts.append(nn.Sequential(*(Block(width, config.layer_scale, drop) for drop in drops)))
            before += count
        self.features = nn.Sequential(*parts)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        last = config.widths[-1]
        self.classifier = nn.Sequential(
            ChannelNorm(last, _EPSILON), nn.Flatten(1), nn.Linear(last, config.classes)
        )
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of f32 images [N, inputs, H, W], f32 [N, classes]."""
        scores: Tensor = self.classifier(self.avgpool(self.features(images)))
        return scores


def convnext_tiny(classes: int = 1000) -> ConvNeXt:
    """ConvNeXt-Tiny for ImageNet, with random weights."""
    return ConvNeXt(ConvNeXtConfig(classes=classes))
