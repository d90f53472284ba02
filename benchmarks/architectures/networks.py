"""The architectures: small, with random weights, each with the inputs that it can do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import transformers as tr
from torch import Tensor, nn

WORDS, PADDING = 400, 3
BATCH, LENGTH, SIZE = 2, 48, 64


@dataclass(frozen=True)
class Scale:
    """Sizes of a network."""

    width: int = 256
    layers: int = 2
    heads: int = 4

    def text(self) -> dict[str, Any]:
        """The keywords that most configurations of text models share."""
        return {
            "vocab_size": WORDS,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": 128,
        }

    def image(self) -> dict[str, Any]:
        """The keywords that most configurations of image models share."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "image_size": SIZE,
            "patch_size": 16,
        }


@dataclass(frozen=True)
class Network:
    """One architecture. optional: the inputs besides `input_ids` that it can do without; None for images."""

    name: str
    make: Callable[[Scale], nn.Module]
    optional: tuple[str, ...] | None = ("attention_mask",)

    def variants(self) -> Iterator[tuple[str, ...]]:
        """The sets of inputs to try: none of the optional ones up to all of them."""
        if self.optional is None:
            yield ("pixel_values",)
            return
        for count in range(len(self.optional) + 1):
            for chosen in combinations(self.optional, count):
                yield ("input_ids", *chosen)


def _of(model: type, config: type, **own: Any) -> Callable[[Scale], nn.Module]:
    return lambda scale: model(config(**scale.text(), **own))


def _picture(model: type, config: type, **own: Any) -> Callable[[Scale], nn.Module]:
    return lambda scale: model(config(**scale.image(), **own))


def _distilbert(scale: Scale) -> nn.Module:
    config = tr.DistilBertConfig(
        vocab_size=WORDS,
        dim=scale.width,
        n_layers=scale.layers,
        n_heads=scale.heads,
        hidden_dim=4 * scale.width,
        max_position_embeddings=128,
    )
    return tr.DistilBertModel(config)


def _gpt2(scale: Scale) -> nn.Module:
    config = tr.GPT2Config(
        vocab_size=WORDS,
        n_embd=scale.width,
        n_layer=scale.layers,
        n_head=scale.heads,
        n_positions=128,
        use_cache=False,
    )
    return tr.GPT2Model(config)


def _opt(scale: Scale) -> nn.Module:
    shared = {key: value for key, value in scale.text().items() if key != "intermediate_size"}
    config = tr.OPTConfig(**shared, ffn_dim=4 * scale.width, word_embed_proj_dim=scale.width, use_cache=False)
    return tr.OPTModel(config)


def _t5(scale: Scale) -> nn.Module:
    config = tr.T5Config(
        vocab_size=WORDS,
        d_model=scale.width,
        d_kv=scale.width // scale.heads,
        d_ff=4 * scale.width,
        num_layers=scale.layers,
        num_heads=scale.heads,
    )
    return tr.T5EncoderModel(config)


def _bart(scale: Scale) -> nn.Module:
    config = tr.BartConfig(
        vocab_size=WORDS,
        d_model=scale.width,
        encoder_layers=scale.layers,
        decoder_layers=1,
        encoder_attention_heads=scale.heads,
        decoder_attention_heads=scale.heads,
        encoder_ffn_dim=4 * scale.width,
        decoder_ffn_dim=scale.width,
        max_position_embeddings=128,
    )
    return tr.BartModel(config).encoder


def _swin(scale: Scale) -> nn.Module:
    width = scale.width // 4
    config = tr.SwinConfig(
        image_size=SIZE, patch_size=4, embed_dim=width, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return tr.SwinModel(config)


def _convnext(scale: Scale) -> nn.Module:
    widths = [scale.width // part for part in (8, 4, 2, 1)]
    return tr.ConvNextModel(
        tr.ConvNextConfig(hidden_sizes=widths, depths=[1, 1, scale.layers, 1], image_size=SIZE)
    )


def _mobilebert(scale: Scale) -> nn.Module:
    half = scale.width // 2
    return tr.MobileBertModel(
        tr.MobileBertConfig(**scale.text(), embedding_size=half, intra_bottleneck_size=half)
    )


_TYPED = ("attention_mask", "token_type_ids")
_DECODER = {"use_cache": False}
_MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}

NETWORKS = (
    Network("bert", _of(tr.BertModel, tr.BertConfig), _TYPED),
    Network("roberta", _of(tr.RobertaModel, tr.RobertaConfig)),
    Network("xlm-roberta", _of(tr.XLMRobertaModel, tr.XLMRobertaConfig)),
    Network("distilbert", _distilbert),
    Network("albert", _of(tr.AlbertModel, tr.AlbertConfig, embedding_size=64), _TYPED),
    Network("mpnet", _of(tr.MPNetModel, tr.MPNetConfig)),
    Network("electra", _of(tr.ElectraModel, tr.ElectraConfig, embedding_size=64), _TYPED),
    Network(
        "deberta-v2",
        _of(tr.DebertaV2Model, tr.DebertaV2Config, relative_attention=True, pos_att_type=["p2c", "c2p"]),
        _TYPED,
    ),
    Network("mobilebert", _mobilebert, _TYPED),
    Network("squeezebert", _of(tr.SqueezeBertModel, tr.SqueezeBertConfig, embedding_size=256)),
    Network("modernbert", _of(tr.ModernBertModel, tr.ModernBertConfig, **_MODERN)),
    Network("gpt2", _gpt2),
    Network("gpt-neox", _of(tr.GPTNeoXModel, tr.GPTNeoXConfig, **_DECODER)),
    Network("opt", _opt),
    Network("llama", _of(tr.LlamaModel, tr.LlamaConfig, **_DECODER)),
    Network("qwen2", _of(tr.Qwen2Model, tr.Qwen2Config, num_key_value_heads=2, **_DECODER)),
    Network("t5-encoder", _t5),
    Network("bart-encoder", _bart),
    Network("clip-text", _of(tr.CLIPTextModel, tr.CLIPTextConfig)),
    Network("vit", _picture(tr.ViTModel, tr.ViTConfig), None),
    Network("deit", _picture(tr.DeiTModel, tr.DeiTConfig), None),
    Network("beit", _picture(tr.BeitModel, tr.BeitConfig), None),
    Network("dinov2", _picture(tr.Dinov2Model, tr.Dinov2Config), None),
    Network("swin", _swin, None),
    Network("convnext", _convnext, None),
)


class Wrapped(nn.Module):
    """A network of some inputs, in order, and one output: its last hidden state."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        state: Tensor = self.network(**dict(zip(self.names, inputs, strict=True))).last_hidden_state
        return state


def example(names: tuple[str, ...], seed: int, batch: int = BATCH, length: int = LENGTH) -> dict[str, Tensor]:
    """Random inputs: pictures, or words with the end of the second row padded where there is a mask."""
    generator = torch.Generator().manual_seed(seed)
    if names == ("pixel_values",):
        return {"pixel_values": torch.randn(batch, 3, SIZE, SIZE, generator=generator)}
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1:2, length - length // 3 :] = 0
    made = {
        "input_ids": torch.randint(PADDING, WORDS, (batch, length), generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, (batch, length), generator=generator),
    }
    return {name: made[name] for name in names}
