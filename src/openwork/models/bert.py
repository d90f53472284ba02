"""A BERT encoder and the sentence embedder built on it, in plain torch.

Module and parameter names follow the published checkpoints of BERT (`encoder.layer.0.attention.self.query`
...), so a checkpoint's tensors load without renaming. Source: Devlin et al. 2019, "BERT"; Reimers & Gurevych
2019, "Sentence-BERT".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.models.attention_sizes import AttentionSizes

Attention = Literal["explicit", "fused"]


@dataclass(frozen=True)
class BertConfig(AttentionSizes):
    """The sizes of a BERT encoder, named as in a checkpoint's `config.json`."""

    vocab_size: int = 30522
    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        self.check_sizes()

    @classmethod
    def read(cls, path: Path) -> BertConfig:
        """Read a checkpoint's `config.json`.

        Raises ValueError for another model type,
        activation or position embedding than this module implements.
        """
        record = json.loads(path.read_text(encoding="utf-8"))
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in expected.items():
            if record.get(key, value) != value:
                raise ValueError(
                    f"{path}: {key} must be {value!r} for this encoder, but it is {record[key]!r}."
                )
        return cls(**{field.name: record[field.name] for field in fields(cls) if field.name in record})


class BertEmbeddings(nn.Module):
    """Sum of word, position and (constant) segment embeddings, then layer norm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        segment = self.token_type_embeddings.weight[0]
        summed: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + positions + segment)
        return summed


class BertSelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d) + bias) V, per head.

    `attention` selects how: "explicit" writes the products and the softmax out, as an exported graph should
    show them; "fused" calls torch's scaled_dot_product_attention.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.head_size = config.num_attention_heads, config.head_size
        self.attention: Attention = "explicit"
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def _split(self, states: Tensor) -> Tensor:
        heads: Tensor = states.unflatten(-1, (self.heads, self.head_size))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (self._split(layer(states)) for layer in (self.query, self.key, self.value))
        if self.attention == "fused":
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        else:
            scores = torch.matmul(query, key.transpose(-1, -2)) * self.head_size**-0.5
            mixed = torch.matmul(torch.softmax(scores + bias, dim=-1), value)
        return mixed.transpose(1, 2).flatten(2)


class BertResidual(nn.Module):
    """layer_norm(dense(x) + residual): the end of each half of a layer."""

    def __init__(self, inputs: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dense(states) + residual)
        return normed


class BertAttention(nn.Module):
    """The attention half of a layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertResidual(config.hidden_size, config)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        attended: Tensor = self.output(self.self(states, bias), states)
        return attended


class BertIntermediate(nn.Module):
    """gelu(dense(x)), the exact GELU with erf."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        return functional.gelu(self.dense(states))


class BertLayer(nn.Module):
    """Attention and feed-forward, each with its residual and layer norm (post-norm)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertResidual(config.intermediate_size, config)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        attended = self.attention(states, bias)
        states = self.output(self.intermediate(attended), attended)
        return states


class BertStack(nn.Module):
    """The list of layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))


def attention_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token counts and the dtype's lowest value where it is padding: [B, L] -> [B, 1, 1, L]."""
    return (1 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


class BertEncoder(nn.Module):
    """Token ids in, hidden states out."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertStack(config)

    def set_attention(self, attention: Attention) -> None:
        """Choose "explicit" (for export) or "fused" (for training) attention in every layer."""
        if attention not in ("explicit", "fused"):
            raise ValueError(f'attention must be "explicit" or "fused", but it is {attention!r}.')
        for module in self.modules():
            if isinstance(module, BertSelfAttention):
                module.attention = attention

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """The embeddings' output and each layer's, first to last:
        num_hidden_layers + 1 tensors f32[B, L, H].
        """
        self._check(input_ids, attention_mask)
        states = [self.embeddings(input_ids)]
        bias = attention_bias(attention_mask, states[0].dtype)
        for layer in self.encoder.layer:
            states.append(layer(states[-1], bias))
        return states

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden states f32[B, L, H] of input_ids i64[B, L] under attention_mask i64[B, L] (1 = a
        token).
        """
        return self.hidden_states(input_ids, attention_mask)[-1]

    def _check(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise ValueError(
                "input_ids and attention_mask must both have the shape [batch, length], but they have "
                f"{list(input_ids.shape)} and {list(attention_mask.shape)}."
            )
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"A text of {input_ids.shape[1]} tokens is longer than the "
                f"{self.config.max_position_embeddings} positions of this encoder; truncate it when "
                "tokenizing."
            )


def mean_pool(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of the hidden states [B, L, H] over the tokens that count: [B, H]."""
    weights = attention_mask[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class SentenceEmbedder(nn.Module):
    """Unit-length sentence embeddings: encode, average over the tokens, divide by the L2 norm."""

    def __init__(self, encoder: BertEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings f32[B, H] of input_ids i64[B, L] under attention_mask i64[B, L] (1 = a token, 0 =
        padding).
        """
        return self.pool(self.encoder(input_ids, attention_mask), attention_mask)

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """The encoder's hidden states, the embeddings' first, the last layer's last."""
        return self.encoder.hidden_states(input_ids, attention_mask)

    def pool(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings f32[B, H] from last hidden states f32[B, L, H]."""
        return functional.normalize(mean_pool(states, attention_mask), dim=1)
