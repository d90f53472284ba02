"""`nn.MultiheadAttention`, fake-quantized: its projections and the inputs of its two products."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.quantization.fake_quantization.fake_quant import FakeQuantize, Learned
from openwork.quantization.fake_quantization.modules import check_mask, masked

ACTIVATIONS = (
    "input_quantizer", "key_input_quantizer", "value_input_quantizer", "query_quantizer", "key_quantizer",
    "probabilities_quantizer", "value_quantizer", "out_proj_input_quantizer",
)  # fmt: skip
"""The quantizers of its activations, the three inputs first."""


class QuantMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` written out: projections, Q K^T, softmax, P V, output projection.

    The parameters keep their names: in_proj_weight f32 [3 E, E], in_proj_bias, out_proj.weight,
    out_proj.bias, and so do their masks. Weights are rounded per output channel.
    """

    in_proj_quantizer: FakeQuantize
    out_proj_quantizer: FakeQuantize

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`, in the same shapes."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._projected(query, key, value)
        bias = self._bias(q, k, attn_mask, key_padding_mask, is_causal)
        mixed, probabilities = self._mix(q, k, v, bias)
        return self._shaped(mixed, probabilities if need_weights else None, batched, average_attn_weights)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        weights = self.in_proj_quantizer(masked(self, "in_proj_weight")).chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = zip((query, key, value), ACTIVATIONS, strict=False)
        return [
            functional.linear(_rounded(self, name, x), weight, bias)
            .unflatten(-1, (self.num_heads, self.head_dim))  # type: ignore[no-untyped-call]
            .transpose(1, 2)
            for (x, name), weight, bias in zip(inputs, weights, biases, strict=True)
        ]

    def _bias(
        self, query: Tensor, key: Tensor, mask: Tensor | None, padding: Tensor | None, causal: bool
    ) -> Tensor | None:
        """What is added to the scores, [L, S], [B, 1, 1, S] or [B, heads, L, S]; None for nothing."""
        if causal and mask is None:
            raise ValueError("is_causal is a hint about attn_mask, which must be given with it.")
        bias = None if mask is None else _additive(mask, query)
        if bias is not None and bias.dim() == 3:
            bias = bias.reshape(query.shape[0], self.num_heads, query.shape[2], key.shape[2])
        if padding is None:
            return bias
        rows = _additive(padding, query)[:, None, None, :]
        return rows if bias is None else bias + rows

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        query = _rounded(self, "query_quantizer", query)
        key = _rounded(self, "key_quantizer", key)
        scores = torch.matmul(query, key.transpose(-1, -2)) * self.head_dim**-0.5
        probabilities = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        probabilities = functional.dropout(probabilities, self.dropout, self.training)
        products = _rounded(self, "probabilities_quantizer", probabilities)
        mixed = torch.matmul(products, _rounded(self, "value_quantizer", value))
        return mixed.transpose(1, 2).flatten(2), probabilities

    def _shaped(
        self, mixed: Tensor, probabilities: Tensor | None, batched: bool, average: bool
    ) -> tuple[Tensor, Tensor | None]:
        weight = self.out_proj_quantizer(masked(self.out_proj, "weight"))
        y = functional.linear(_rounded(self, "out_proj_input_quantizer", mixed), weight, self.out_proj.bias)
        if probabilities is not None and average:
            probabilities = probabilities.mean(dim=1)
        if not batched:
            return y.squeeze(0), None if probabilities is None else probabilities.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), probabilities


def refusal(module: nn.MultiheadAttention) -> str | None:
    """Why this attention cannot be quantized, None if it can."""
    if not module._qkv_same_embed_dim:
        return "its keys or values have a width of their own (kdim, vdim), which is not supported"
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds a key of its own (add_bias_kv, add_zero_attn), which is not supported"
    return None


def quantize_multihead(
    module: nn.MultiheadAttention, name: str, learned: Learned = "no"
) -> QuantMultiheadAttention:
    """Make the attention a quantized one, in place; its activations' quantizers are left None.

    Raises ValueError if a weight holds NaN or infinity, or breaks its mask.
    """
    check_mask(module, "in_proj_weight", name)
    check_mask(module.out_proj, "weight", f"{name}.out_proj")
    in_weight = masked(module, "in_proj_weight").detach()
    out_weight = masked(module.out_proj, "weight").detach()
    into = FakeQuantize.for_weight(f"{name}.in_proj", in_weight, axis=0, learned=learned)
    out = FakeQuantize.for_weight(f"{name}.out_proj", out_weight, axis=0, learned=learned)
    module.__class__ = QuantMultiheadAttention
    assert isinstance(module, QuantMultiheadAttention)
    module.in_proj_quantizer, module.out_proj_quantizer = into, out
    for quantizer in ACTIVATIONS:
        setattr(module, quantizer, None)
    return module


def _rounded(module: nn.Module, name: str, x: Tensor) -> Tensor:
    quantizer = getattr(module, name)
    return x if quantizer is None else quantizer(x)


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """A boolean mask (true = left out) as 0 and -infinity; a float one as it is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
