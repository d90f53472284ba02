"""A small Transformer that embeds captions, and their characters as its tokens; in plain torch."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.models.unet_blocks import Attention, FeedForward

CHARACTERS = " " + string.ascii_letters + string.digits + string.punctuation
"""What a caption may hold; the first one, a blank, also fills up a short caption."""


def caption_ids(captions: Sequence[str], length: int) -> Tensor:
    """The numbers of the characters of captions, i64 [B, length], filled up with blanks.

    Raises:
        ValueError: For a caption that is longer, or holds a character that is not in CHARACTERS.
    """
    rows = []
    for caption in captions:
        unknown = sorted(set(caption) - set(CHARACTERS))
        if unknown or len(caption) > length:
            why = f"holds {unknown[0]!r}" if unknown else f"has {len(caption)} characters"
            raise ValueError(
                f"a caption has at most {length} characters of ASCII, but {caption!r} {why}; shorten or "
                "spell it otherwise."
            )
        rows.append([CHARACTERS.index(character) for character in caption.ljust(length)])
    return torch.tensor(rows, dtype=torch.int64)


@dataclass(frozen=True)
class TextEncoderConfig:
    """The sizes of a text encoder.

    Args:
        width: Numbers of each token.
        layers: Its Transformer blocks.
        head: Channels of an attention head.
        length: Characters of a caption, blanks at the end included.
        vocabulary: How many different tokens there are.

    Raises:
        ValueError: For sizes that are not positive, or heads that do not divide the width.
    """

    width: int = 64
    layers: int = 2
    head: int = 32
    length: int = 24
    vocabulary: int = len(CHARACTERS)

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.head, self.length, self.vocabulary) < 1:
            raise ValueError(f"every size of a text encoder must be positive, but this is {self}.")
        if self.width % self.head:
            raise ValueError(f"head must divide the width {self.width}, but it is {self.head}.")


class _Layer(nn.Module):
    """Attention and a feed-forward part, each of a norm and added."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, head)
        self.norm2 = nn.LayerNorm(width)
        self.ff = FeedForward(width, "gelu")

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attention(self.norm1(states))
        summed: Tensor = states + self.ff(self.norm2(states))
        return summed


class TextEncoder(nn.Module):
    """Embeds captions: i64 [B, length] -> f32 [B, length, width].

    Args:
        config: Its sizes.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.length, config.width)
        self.layers = nn.ModuleList(_Layer(config.width, config.head) for _ in range(config.layers))
        self.final_layer_norm = nn.LayerNorm(config.width)
        self.register_buffer("positions", torch.arange(config.length), persistent=False)
        self.positions: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids, i64 [B, length], as f32 [B, length, width]."""
        states = self.token_embedding(ids) + self.position_embedding(self.positions)
        for layer in self.layers:
            states = layer(states)
        made: Tensor = self.final_layer_norm(states)
        return made
