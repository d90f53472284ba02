"""A UNet that takes noise from images step by step, as a text says, in plain torch.

It is built as diffusers' UNet2DConditionModel is (with `use_linear_projection`), and its parameters have the
same names, so that tensors of a checkpoint of the same sizes load without renaming. Source: Rombach et al.
2022, "High-resolution image synthesis with latent diffusion models".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.models.unet_blocks import (
    GATED,
    PLAIN,
    RESNET_EPSILON,
    BlockSizes,
    Downsample,
    ImageTransformer,
    ResnetBlock,
    TimeEmbedding,
    TimeProjection,
    Upsample,
)


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of a UNet.

    Args:
        widths: Channels of each level; between two levels height and width are halved.
        attention: Whether the blocks of each level look at the text; those in the middle always do.
        layers: Blocks of each level on the way down; on the way up there is one more.
        channels: Of the image, in and out.
        context: Numbers of each token of the text.
        groups: Of every GroupNorm.
        head: Channels of an attention head.
        feed_forward: "geglu" or "gelu".
        transformers: Attention blocks after each other in one place.

    Raises:
        ValueError: For sizes that do not divide each other, that are not positive, or levels of which one
            number is missing.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (False, True, True)
    layers: int = 1
    channels: int = 3
    context: int = 64
    groups: int = 32
    head: int = 32
    feed_forward: str = GATED
    transformers: int = 1

    def __post_init__(self) -> None:
        numbers = (*self.widths, self.layers, self.channels, self.context, self.groups, self.head)
        if not self.widths or min(*numbers, self.transformers) < 1:
            raise ValueError(f"every size of a UNet must be positive, but this is {self}.")
        if len(self.widths) != len(self.attention):
            raise ValueError(
                f"widths and attention must name the same levels, but there are {len(self.widths)} and "
                f"{len(self.attention)}."
            )
        if any(width % size for width in self.widths for size in (self.groups, self.head, 2)):
            raise ValueError(
                f"groups and head must divide every width, and widths must be even, but the widths are "
                f"{self.widths}, with {self.groups} groups and heads of {self.head}."
            )
        if self.feed_forward not in (GATED, PLAIN):
            raise ValueError(f"feed_forward is {GATED!r} or {PLAIN!r}, but it is {self.feed_forward!r}.")

    @property
    def sizes(self) -> BlockSizes:
        """What all blocks share; a time is embedded in four times as many numbers as the first level has."""
        time = 4 * self.widths[0]
        return BlockSizes(time, self.context, self.groups, self.head, self.feed_forward, self.transformers)


class _Level(nn.Module):
    """Blocks of one level: resnets, each with attention behind it where the level has it."""

    def __init__(self, widths: list[tuple[int, int]], attends: bool, sizes: BlockSizes) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(inputs, outputs, sizes) for inputs, outputs in widths)
        if attends:
            self.attentions = nn.ModuleList(ImageTransformer(outputs, sizes) for _, outputs in widths)
        self.attends = attends

    def step(self, index: int, states: Tensor, time: Tensor, text: Tensor) -> Tensor:
        states = self.resnets[index](states, time)
        return self.attentions[index](states, text) if self.attends else states


class DownBlock(_Level):
    """A level on the way down; gives every state that the way up reads again."""

    def __init__(self, widths: list[tuple[int, int]], attends: bool, last: bool, sizes: BlockSizes) -> None:
        super().__init__(widths, attends, sizes)
        if not last:
            self.downsamplers = nn.ModuleList([Downsample(widths[-1][1])])
        self.halves = not last

    def forward(self, states: Tensor, time: Tensor, text: Tensor) -> list[Tensor]:
        made = []
        for index in range(len(self.resnets)):
            states = self.step(index, states, time, text)
            made.append(states)
        return [*made, self.downsamplers[0](states)] if self.halves else made


class UpBlock(_Level):
    """A level on the way up: each block reads, beside the states, those that the way down left."""

    def __init__(self, widths: list[tuple[int, int]], attends: bool, last: bool, sizes: BlockSizes) -> None:
        super().__init__(widths, attends, sizes)
        if not last:
            self.upsamplers = nn.ModuleList([Upsample(widths[-1][1])])
        self.doubles = not last

    def forward(self, states: Tensor, skipped: list[Tensor], time: Tensor, text: Tensor) -> Tensor:
        for index in range(len(self.resnets)):
            states = self.step(index, torch.cat([states, skipped[index]], dim=1), time, text)
        made: Tensor = self.upsamplers[0](states) if self.doubles else states
        return made


class MiddleBlock(nn.Module):
    """Attention between two resnets."""

    def __init__(self, width: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, sizes) for _ in range(2))
        self.attentions = nn.ModuleList([ImageTransformer(width, sizes)])

    def forward(self, states: Tensor, time: Tensor, text: Tensor) -> Tensor:
        states = self.attentions[0](self.resnets[0](states, time), text)
        made: Tensor = self.resnets[1](states, time)
        return made


def _down_widths(config: UNetConfig) -> list[list[tuple[int, int]]]:
    """Input and output channels of each block on the way down, by level."""
    before = (config.widths[0], *config.widths[:-1])
    return [
        [(first, width), *[(width, width)] * (config.layers - 1)]
        for first, width in zip(before, config.widths, strict=True)
    ]


def _up_widths(config: UNetConfig) -> list[list[tuple[int, int]]]:
    """The same on the way up, from the lowest level; an input holds the skipped state too."""
    left = [config.widths[0]]
    for level, blocks in enumerate(_down_widths(config)):
        left += [outputs for _, outputs in blocks]
        left += [blocks[-1][1]] if level + 1 < len(config.widths) else []
    made, states = [], config.widths[-1]
    for width in reversed(config.widths):
        blocks = []
        for _ in range(config.layers + 1):
            blocks.append((states + left.pop(), width))
            states = width
        made.append(blocks)
    return made


class UNet(nn.Module):
    """Predicts the noise in images, given how far they are from clear and what they are to show.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        sizes, widths, count = config.sizes, config.widths, len(config.widths)
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.time_proj = TimeProjection(widths[0])
        self.time_embedding = TimeEmbedding(widths[0], sizes.time)
        self.down_blocks = nn.ModuleList(
            DownBlock(blocks, config.attention[level], level + 1 == count, sizes)
            for level, blocks in enumerate(_down_widths(config))
        )
        self.mid_block = MiddleBlock(widths[-1], sizes)
        self.up_blocks = nn.ModuleList(
            UpBlock(blocks, config.attention[-1 - level], level + 1 == count, sizes)
            for level, blocks in enumerate(_up_widths(config))
        )
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0], RESNET_EPSILON)
        self.conv_out = nn.Conv2d(widths[0], config.channels, 3, padding=1)

    def forward(self, images: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """The noise in images, f32 of their shape.

        Args:
            images: f32 [B, channels, H, W]; the number of levels halves H and W without a rest.
            times: How many steps of noise they have, integers or f32 [B].
            text: The embedded text, f32 [B, L, context].
        """
        time = self.time_embedding(self.time_proj(times))
        states = self.conv_in(images)
        skipped = [states]
        for down in self.down_blocks:
            skipped += down(states, time, text)
            states = skipped[-1]
        states = self.mid_block(states, time, text)
        for up in self.up_blocks:
            count = self.config.layers + 1
            states = up(states, skipped[: -count - 1 : -1], time, text)
            skipped = skipped[:-count]
        made: Tensor = self.conv_out(functional.silu(self.conv_norm_out(states)))
        return made
