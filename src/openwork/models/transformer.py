"""Transformers that write text, in plain torch: an encoder and decoder as FairSeq has them, and a GPT.

A decoder takes the keys and values of the tokens before (its cache) as inputs, `past_key_0`, `past_value_0`,
`past_key_1` .., f32[B, heads, P, D] each, and gives them back with those of the new tokens; P is 0 at the
beginning of a text. Whoever samples or searches by beams holds the caches and reorders them. Sources: Vaswani
et al. 2017, "Attention Is All You Need"; Ott et al. 2019, "fairseq"; Radford et al. 2019, GPT-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.models.attention_sizes import AttentionSizes
from openwork.models.bert import attention_bias

Past = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TransformerConfig(AttentionSizes):
    """Sizes of a stack. pre_norm: a layer norm stands before each half of a layer and one at the end, as in
    GPT-2, else behind each half's sum. activation: "relu" or "gelu"."""

    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    max_position_embeddings: int = 1024
    pre_norm: bool = True
    activation: str = "relu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        self.check_sizes()
        if self.activation not in ("relu", "gelu"):
            raise ValueError(f'activation must be "relu" or "gelu", but it is {self.activation!r}.')

    def empty_past(self, batch: int, length: int = 0) -> dict[str, Tensor]:
        """The caches of a decoder that has seen nothing, or `length` tokens' worth of zeros."""
        shape = (batch, self.num_attention_heads, length, self.head_size)
        return {
            f"past_{kind}_{layer}": torch.zeros(shape)
            for layer in range(self.num_hidden_layers)
            for kind in ("key", "value")
        }


class Embeddings(nn.Module):
    """Words plus learned positions, which begin behind the past."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        # Tied to the output projection, words must not make its logits large.
        nn.init.normal_(self.words.weight, std=config.hidden_size**-0.5)

    def forward(self, input_ids: Tensor, past: int = 0) -> Tensor:
        places = self.positions.weight[past : past + input_ids.shape[1]]
        return self.words(input_ids) + places  # type: ignore[no-any-return]


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d) + bias) V, per head, of one value or across two."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        width = config.hidden_size
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, states: Tensor) -> Tensor:
        """[B, L, H] as [B, heads, L, D]."""
        heads: Tensor = states.unflatten(-1, (self.heads, self.head_size))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def keys_of(self, states: Tensor) -> Past:
        """Keys and values of these states, [B, heads, L, D] each."""
        return self.split(self.key(states)), self.split(self.value(states))

    def forward(self, states: Tensor, seen: Past, bias: Tensor | None) -> Tensor:
        """States [B, L, H] over keys and values [B, heads, T, D]; bias f32, broadcast to the scores."""
        scores = torch.matmul(self.split(self.query(states)), seen[0].transpose(-1, -2))
        scores = scores * self.head_size**-0.5
        weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        mixed = torch.matmul(weights, seen[1]).transpose(1, 2).flatten(2)
        return self.output(mixed)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = functional.relu if config.activation == "relu" else functional.gelu

    def forward(self, states: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(states)))  # type: ignore[no-any-return]


def _norm(config: TransformerConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Layer(nn.Module):
    """Self-attention, attention to an encoder's states where `crosses`, and feed-forward."""

    def __init__(self, config: TransformerConfig, crosses: bool) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention, self.feed_forward = Attention(config), FeedForward(config)
        self.cross = Attention(config) if crosses else None
        self.attention_norm, self.feed_forward_norm = _norm(config), _norm(config)
        if crosses:
            self.cross_norm = _norm(config)

    def _half(self, norm: nn.Module, states: Tensor) -> Tensor:
        """What a half of the layer reads."""
        return norm(states) if self.pre_norm else states

    def _sum(self, norm: nn.Module, states: Tensor, made: Tensor) -> Tensor:
        """What a half of the layer leaves."""
        summed = states + made
        return summed if self.pre_norm else norm(summed)

    def attend(self, states: Tensor, bias: Tensor | None, past: Past | None = None) -> tuple[Tensor, Past]:
        """The half of self-attention, and all keys and values."""
        read = self._half(self.attention_norm, states)
        seen = self.attention.keys_of(read)
        if past is not None:
            seen = (torch.cat([past[0], seen[0]], dim=2), torch.cat([past[1], seen[1]], dim=2))
        return self._sum(self.attention_norm, states, self.attention(read, seen, bias)), seen

    def look(self, states: Tensor, encoded: Tensor, bias: Tensor | None) -> Tensor:
        """The half that attends to an encoder's states."""
        assert self.cross is not None
        read = self._half(self.cross_norm, states)
        return self._sum(self.cross_norm, states, self.cross(read, self.cross.keys_of(encoded), bias))

    def feed(self, states: Tensor) -> Tensor:
        """The half without attention."""
        read = self._half(self.feed_forward_norm, states)
        return self._sum(self.feed_forward_norm, states, self.feed_forward(read))


class Stack(nn.Module):
    """Embeddings, layers, and a last layer norm where they are pre-norm."""

    def __init__(self, config: TransformerConfig, crosses: bool = False) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, crosses) for _ in range(config.num_hidden_layers))
        self.norm = _norm(config) if config.pre_norm else nn.Identity()

    def blocks(self) -> list[Layer]:
        """The layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]


class TransformerEncoder(Stack):
    """Token ids in, hidden states out."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States f32[B, S, H] of input_ids i64[B, S] under attention_mask i64[B, S] (1 = a token)."""
        states = self.embeddings(input_ids)
        bias = attention_bias(attention_mask, states.dtype)
        for layer in self.blocks():
            states = layer.feed(layer.attend(states, bias)[0])
        return self.norm(states)  # type: ignore[no-any-return]


def causal_bias(length: int, past: int, states: Tensor) -> Tensor:
    """0 where a token sees a key and the lowest number where that stands behind it: [L, P + L]."""
    keys = torch.arange(past + length, device=states.device)
    hidden = keys[None, :] > keys[past:, None]
    return hidden.to(states.dtype) * torch.finfo(states.dtype).min


class _Decoder(Stack):
    """What both decoders do: logits f32[B, L, V] by the words' own embeddings, and the caches after."""

    def decode(
        self, input_ids: Tensor, past: Mapping[str, Tensor], encoded: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """encoded: an encoder's states and their attention_mask, for layers that look at them."""
        before = [(past[f"past_key_{i}"], past[f"past_value_{i}"]) for i in range(len(self.layers))]
        length = before[0][0].shape[2]
        states = self.embeddings(input_ids, length)
        bias = causal_bias(input_ids.shape[1], length, states)
        across = None if encoded is None else attention_bias(encoded[1], states.dtype)
        caches: list[Tensor] = []
        for layer, kept in zip(self.blocks(), before, strict=True):
            states, seen = layer.attend(states, bias, kept)
            if encoded is not None:
                states = layer.look(states, encoded[0], across)
            states = layer.feed(states)
            caches += seen
        return functional.linear(self.norm(states), self.embeddings.words.weight), *caches


class GPT(_Decoder):
    """A stack of blocks that read what is before them: GPT-2's where they are pre-norm with GELU."""

    def forward(self, input_ids: Tensor, **past: Tensor) -> tuple[Tensor, ...]:
        """Logits of input_ids i64[B, L] behind a past of P tokens, then the keys and values of all P + L:
        key 0, value 0, key 1 .., f32[B, heads, P + L, D]."""
        return self.decode(input_ids, past)


class TransformerDecoder(_Decoder):
    """The decoder of a translation model: causal self-attention and attention to the source."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, crosses=True)

    def forward(
        self, input_ids: Tensor, encoder_states: Tensor, encoder_mask: Tensor, **past: Tensor
    ) -> tuple[Tensor, ...]:
        """As `GPT`, beside encoder_states f32[B, S, H] under encoder_mask i64[B, S]."""
        return self.decode(input_ids, past, (encoder_states, encoder_mask))


def cache_axes(names: Mapping[str, Tensor]) -> dict[str, dict[int, str]]:
    """The free dimensions of a decoder's inputs, for `ExportOptions.dynamic_axes`: batch, length of the new
    tokens, past, and source, the encoder's length."""
    axes = {"input_ids": {0: "batch", 1: "length"}}
    axes |= {name: {0: "batch", 1: "source"} for name in names if name.startswith("encoder_")}
    return axes | {name: {0: "batch", 2: "past"} for name in names if name.startswith("past_")}
