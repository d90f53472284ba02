"""Scaled dot-product attention, head by head, with the bits that docs/arithmetic.md defines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openwork.graph.numerics import binary32, fixed_attention
from openwork.graph.numerics.binary32 import Float, fma, quiet, sum16
from openwork.graph.numerics.epilogue import store

Array = NDArray[Any]
Attributes = Mapping[str, Any]

FEW = 4
"""Queries, fewer than the keys, up to which binary32 reads the keys and values once where they lie."""


class Operands(NamedTuple):
    """The heads of one attention: q [B, heads, L, D], k and v [B, groups, T, D], the past in front."""

    q: Float
    k: Float
    v: Float


class Shown(NamedTuple):
    """What the queries of one head see: kept [T] says which keys take part, visible [L, T] which of these
    each query sees; bias [L, T] is added to the scaled scores, or None."""

    kept: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    bias: Float | None


def heads_of(x: Float, heads: int) -> Float:
    """[B, L, heads * D] as [B, heads, L, D]."""
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(0, 2, 1, 3)


def round_trip(x: Float, a: Attributes, name: str) -> Float:
    """x quantized with the attributes NAME_scale and NAME_zero_point, and back; as it is without them."""
    scale, zero_point = a.get(f"{name}_scale"), a.get(f"{name}_zero_point", 0)
    if scale is None:
        return x
    centred = binary32.quantize(x, scale, zero_point).astype(np.float32) - np.float32(zero_point)
    return np.asarray(centred * np.float32(scale), np.float32)


def scores(q: Float, k: Float, bias: Float | None, a: Attributes) -> Float:
    """s[i, j] = (sum over d of q[i, d] * k[j, d]) * scale + bias[i, j], by fma in increasing order of d.

    The sum is rounded to u8 and back where there is a score_scale; the bias comes by one more fma.
    """
    total = np.zeros((len(q), len(k)), np.float32)
    for d in range(q.shape[-1]):
        total = fma(q[:, None, d], k[None, :, d], total)
    with quiet():
        total, scale = round_trip(total, a, "score"), np.float32(a["scale"])
        return np.asarray(total * scale, np.float32) if bias is None else fma(total, scale, bias)


def softmax_parts(s: Float, visible: NDArray[np.bool_]) -> tuple[Float, Float, Float]:
    """e = exp(s - max) where visible, else +0, its sum over the last axis, and the maximum."""
    with quiet():
        top = np.where(visible, s, -np.inf).max(-1, keepdims=True).astype(np.float32)
        e = np.where(visible, binary32.exp(s - top), np.float32(0)).astype(np.float32)
    return e, sum16(e), top[..., 0]


def in_binary32(q: Float, k: Float, v: Float, shown: Shown, a: Attributes) -> Float:
    """The general form, of a head q [L, D], k and v [T, D].

    Probabilities are rounded to u8 and back, before they weigh, where there is a probability_scale.
    """
    p, z, top = softmax_parts(scores(q, k, shown.bias, a), shown.visible)
    with quiet():
        factor = np.float32(1) / z
        if "probability_scale" in a:
            p, factor = round_trip(p * factor[:, None], a, "probability"), np.ones_like(factor)
        if shown.bias is not None:
            factor = factor + (top - top)
    total = np.zeros(q.shape, np.float32)
    for j in range(len(k)):
        total = fma(p[:, j, None], v[None, j, :], total)
    with quiet():
        y = np.asarray(total * factor[:, None], np.float32)
    return np.where(shown.visible.any(-1, keepdims=True), y, np.float32(0)).astype(np.float32)


def of_head(q: Float, k: Float, v: Float, shown: Shown, a: Attributes) -> Float:
    """One head: in fixed point where its numbers allow it, its queries are not few and nothing is rounded
    inside; 0 where nothing is kept."""
    kept = shown.kept
    if not kept.any():
        return np.zeros(q.shape, np.float32)
    few = len(q) <= FEW and len(q) < len(k)
    rounded = "score_scale" in a or "probability_scale" in a
    if few or rounded or not fixed_attention.allowed(q, k[kept], v[kept], a["scale"]):
        return in_binary32(q, k, v, shown, a)
    bias = None if shown.bias is None else shown.bias[:, kept]
    return fixed_attention.attention(q, k[kept], v[kept], a["scale"], (shown.visible[:, kept], bias))


def operands(
    q: Float, k: Float | None, v: Float | None, past: tuple[Float, Float] | None, a: Attributes
) -> Operands:
    """The heads of what a node is fed.

    Without k and v, q [B, L, (heads + 2 groups) D] holds the three side by side; but where it is only as wide
    as the heads of the past, the past alone is attended to.
    """
    heads, groups = a["heads"], a.get("kv_heads", a["heads"])
    if k is None or v is None:
        if past is not None and q.shape[-1] == heads * past[0].shape[-1]:
            return Operands(heads_of(q, heads), *past)
        size = q.shape[-1] // (heads + 2 * groups)
        q, k, v = np.split(q, [heads * size, (heads + groups) * size], axis=-1)
    keys, values = heads_of(k, groups), heads_of(v, groups)
    if past is not None:
        keys, values = (np.concatenate(each, axis=2) for each in zip(past, (keys, values), strict=True))
    return Operands(heads_of(q, heads), keys, values)


def attention(
    q: Float,
    k: Float | None,
    v: Float | None,
    mask: Array | None,
    bias: Float | None,
    past_k: Float | None,
    past_v: Float | None,
    a: Attributes,
) -> tuple[Array, Float, Float]:
    """softmax(q k^T * scale + bias over the visible keys) v, per head: [B, L, H], and all keys and values.

    A key is visible where `mask` [B, T] is not 0 and, where `causal` is set, query i sees key j only if
    j <= i + T - L. What sees no key is 0.
    """
    heads = operands(q, k, v, None if past_k is None or past_v is None else (past_k, past_v), a)
    batch, count, length, size = heads.q.shape
    keys, shared = heads.k.shape[2], count // heads.k.shape[1]
    kept = np.ones((batch, keys), np.bool_) if mask is None else mask != 0
    seen = np.ones((length, keys), np.bool_)
    if a.get("causal", 0):
        seen = np.arange(keys) <= np.arange(length)[:, None] + (keys - length)
    y = np.zeros(heads.q.shape, np.float32)
    for b, h in np.ndindex(batch, count):
        added = None if bias is None else _bias_of(bias, b, h, (length, keys))
        shown = Shown(kept[b], seen & kept[b], added)
        y[b, h] = of_head(heads.q[b, h], heads.k[b, h // shared], heads.v[b, h // shared], shown, a)
    joined = y.transpose(0, 2, 1, 3).reshape(batch, length, count * size)
    return store(joined, a), np.ascontiguousarray(heads.k), np.ascontiguousarray(heads.v)


def _bias_of(bias: Float, batch: int, head: int, shape: tuple[int, int]) -> Float:
    """The bias [L, T] of a head; the batch elements take those of the bias in turn."""
    batches, heads = bias.shape[:2]
    return np.broadcast_to(bias[batch % batches, head % heads], shape)
