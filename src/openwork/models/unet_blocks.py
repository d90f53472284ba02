"""What a text-to-image UNet is built of, in plain torch, with the names of diffusers' checkpoints.

Images are f32 [B, C, H, W], texts f32 [B, L, context] with as many numbers for each token as `context` says,
and embedded times f32 [B, time].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

RESNET_EPSILON = 1e-5
ATTENTION_EPSILON = 1e-6
LONGEST_PERIOD = 10_000
GATED, PLAIN = "geglu", "gelu"


@dataclass(frozen=True)
class BlockSizes:
    """What all blocks of one UNet share.

    time : numbers of an embedded time. context : of a token of the text. groups : of every GroupNorm.
    head : channels of an attention head. feed_forward : GATED or PLAIN. transformers : blocks of attention
    after each other in one place.
    """

    time: int
    context: int
    groups: int
    head: int
    feed_forward: str = GATED
    transformers: int = 1


class TimeProjection(nn.Module):
    """Sines and cosines of a time, as many numbers as `width` says: [B] -> f32 [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        steps = torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("frequencies", torch.exp(-math.log(LONGEST_PERIOD) * steps), persistent=False)
        self.frequencies: Tensor

    def forward(self, times: Tensor) -> Tensor:
        angles = times.to(torch.float32)[:, None] * self.frequencies
        return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimeEmbedding(nn.Module):
    """Two products with a SiLU between them."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.linear_2(functional.silu(self.linear_1(states)))
        return made


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + time))); x through a 1x1 convolution where widths differ."""

    def __init__(self, inputs: int, outputs: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(sizes.groups, inputs, RESNET_EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(sizes.time, outputs)
        self.norm2 = nn.GroupNorm(sizes.groups, outputs, RESNET_EPSILON)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        states = self.conv1(functional.silu(self.norm1(images)))
        states = states + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        states = self.conv2(functional.silu(self.norm2(states)))
        beside = images if self.conv_shortcut is None else self.conv_shortcut(images)
        summed: Tensor = beside + states
        return summed


class Attention(nn.Module):
    """Attention of [B, L, width] over itself, or over a text [B, K, context]."""

    def __init__(self, width: int, head: int, context: int | None = None) -> None:
        super().__init__()
        self.heads = width // head
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def _split(self, states: Tensor) -> Tensor:
        batch, length, width = states.shape
        return states.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, states: Tensor, text: Tensor | None = None) -> Tensor:
        source = states if text is None else text
        q, k, v = (self._split(made) for made in (self.to_q(states), self.to_k(source), self.to_v(source)))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        made: Tensor = self.to_out(mixed.transpose(1, 2).reshape(states.shape))
        return made


class Gated(nn.Module):
    """One half of a product times the GELU of the other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, states: Tensor) -> Tensor:
        value, gate = self.proj(states).chunk(2, dim=-1)
        made: Tensor = value * functional.gelu(gate)
        return made


class Plain(nn.Module):
    """The GELU of a product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, states: Tensor) -> Tensor:
        return functional.gelu(self.proj(states))


class FeedForward(nn.Module):
    """To four times the width, through a GELU, and back."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        first = Gated(width, 4 * width) if kind == GATED else Plain(width, 4 * width)
        self.net = nn.Sequential(first, nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.net(states)
        return made


class TransformerBlock(nn.Module):
    """Attention over the image's pixels, over the text, and a feed-forward part, each of a norm and added."""

    def __init__(self, width: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, sizes.head)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, sizes.head, sizes.context)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, sizes.feed_forward)

    def forward(self, states: Tensor, text: Tensor) -> Tensor:
        states = self.attn1(self.norm1(states)) + states
        states = self.attn2(self.norm2(states), text) + states
        summed: Tensor = self.ff(self.norm3(states)) + states
        return summed


class ImageTransformer(nn.Module):
    """Transformer blocks over the pixels of an image, between two products, added to the image."""

    def __init__(self, width: int, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(sizes.groups, width, ATTENTION_EPSILON)
        self.proj_in = nn.Linear(width, width)
        blocks = (TransformerBlock(width, sizes) for _ in range(sizes.transformers))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(width, width)

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        batch, width, height, columns = images.shape
        states = self.norm(images).permute(0, 2, 3, 1).reshape(batch, height * columns, width)
        states = self.proj_in(states)
        for block in self.transformer_blocks:
            states = block(states, text)
        states = self.proj_out(states).reshape(batch, height, columns, width)
        summed: Tensor = states.permute(0, 3, 1, 2) + images
        return summed


class Downsample(nn.Module):
    """Half of height and width, by a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.conv(images)
        return made


class Upsample(nn.Module):
    """Every pixel four times, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.conv(functional.interpolate(images, scale_factor=2.0, mode="nearest"))
        return made
