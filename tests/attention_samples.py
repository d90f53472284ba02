"""Random attentions of every form: what the operator reads, and exact attention as witness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attention_bound
from openwork.graph.numerics.attention import attention

Array = NDArray[Any]
SLOTS = ("q", "k", "v", "mask", "bias", "past_k", "past_v")


def attended(
    q: Array, k: Array | None, v: Array | None, mask: Array | None, attributes: dict[str, Any]
) -> Array:
    """What the operator means without a bias and a past."""
    return attention(q, k, v, mask, None, None, None, attributes)[0]


@dataclass(frozen=True)
class Sizes:
    """past and fresh keys (fresh 0: the past alone), queries, heads, groups of heads that share keys."""

    batch: int = 2
    queries: int = 5
    past: int | None = None
    fresh: int = 5
    heads: int = 4
    groups: int = 4
    size: int = 8

    @property
    def keys(self) -> int:
        return (self.past or 0) + self.fresh


@dataclass(frozen=True)
class Problem:
    """One attention: its arrays by slot (None where absent) and its attributes."""

    sizes: Sizes
    arrays: dict[str, Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> tuple[Array, Array, Array]:
        """y, and all keys and values."""
        return attention(*(self.arrays[name] for name in SLOTS), self.attributes)

    def heads(self) -> list[Array]:
        """q, k, v [B, heads, L or T, D], each head with keys and values of its own."""
        s = self.sizes
        q, k, v = (self.arrays[name] for name in "qkv")
        assert q is not None
        if k is None and s.fresh:
            q, k, v = np.split(q, [s.heads * s.size, (s.heads + s.groups) * s.size], axis=-1)
        made = [q.reshape(s.batch, s.queries, s.heads, s.size).transpose(0, 2, 1, 3)]
        for new, past in ((k, self.arrays["past_k"]), (v, self.arrays["past_v"])):
            parts = [] if past is None else [past]
            if new is not None:
                parts.append(new.reshape(s.batch, s.fresh, s.groups, s.size).transpose(0, 2, 1, 3))
            made.append(np.repeat(np.concatenate(parts, axis=2), s.heads // s.groups, axis=1))
        return made

    def added(self) -> NDArray[np.float64]:
        """What is added to the scaled scores: the bias, and minus infinity where a query does not see."""
        s, mask, bias = self.sizes, self.arrays["mask"], self.arrays["bias"]
        added = np.zeros((s.batch, s.heads, s.queries, s.keys))
        if bias is not None:
            added = added + np.resize(bias, (s.batch, *bias.shape[1:]))
        if mask is not None:
            added = np.where(mask[:, None, None, :] != 0, added, -np.inf)
        if self.attributes.get("causal"):
            last = np.arange(s.queries)[:, None] + s.keys - s.queries
            added = np.where(np.arange(s.keys) <= last, added, -np.inf)
        return added

    def exact(self) -> Array:
        """The same by torch's scaled_dot_product_attention in binary64; 0 for what sees no key."""
        parts = [torch.tensor(x, dtype=torch.float64) for x in self.heads()]
        added = torch.tensor(self.added())
        y = torch.nn.functional.scaled_dot_product_attention(
            *parts, attn_mask=added, scale=self.attributes["scale"]
        )
        y = torch.where((added > -torch.inf).any(-1, keepdim=True), y, 0.0)
        return y.transpose(1, 2).reshape(self.sizes.batch, self.sizes.queries, -1).numpy()

    def tolerance(self) -> float:
        """How far y may lie from exact attention."""
        q, k, v = self.heads()
        size = self.sizes.size
        norms = [float(np.linalg.norm(x, axis=-1).max()) for x in (q, k)]
        score = self.attributes["scale"] * norms[0] * norms[1] + float(np.abs(self.finite_bias()).max())
        return attention_bound.relative(score, size, self.sizes.keys) * float(np.abs(v).max())

    def finite_bias(self) -> Array:
        """The bias where it is of the size of a score, 0 elsewhere."""
        bias = self.arrays["bias"]
        return np.zeros(1) if bias is None else np.where(np.abs(bias) < 1e4, bias, 0)


def problem(
    seed: int, sizes: Sizes, *, packed: bool = False, mask: str = "", bias: str = "", **attributes: Any
) -> Problem:
    """A random attention. mask: "holes" or "end". bias: which of "bhl" are whole, "x" for none of them."""
    rng, s = np.random.default_rng(seed), sizes

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32)

    arrays: dict[str, Array | None] = dict.fromkeys(SLOTS)
    parts = s.heads + 2 * s.groups if packed else s.heads
    arrays["q"] = normal(s.batch, s.queries, parts * s.size)
    if s.fresh and not packed:
        arrays["k"], arrays["v"] = (normal(s.batch, s.fresh, s.groups * s.size) for _ in "kv")
    if s.past is not None:
        arrays["past_k"], arrays["past_v"] = (normal(s.batch, s.groups, s.past, s.size) for _ in "kv")
    if mask:
        kept = (
            rng.integers(0, 3, (s.batch, s.keys)) > 0 if mask == "holes" else np.arange(s.keys) <= s.keys // 2
        )
        arrays["mask"] = np.broadcast_to(kept, (s.batch, s.keys)).astype(np.int64)
    if bias:
        whole = {"b": s.batch, "h": s.heads, "l": s.queries}
        arrays["bias"] = normal(*(size if name in bias else 1 for name, size in whole.items()), s.keys)
    grouped = {"kv_heads": s.groups} if s.groups != s.heads else {}
    return Problem(s, arrays, {"heads": s.heads, "scale": s.size**-0.5, **grouped, **attributes})


def _random_sizes(rng: np.random.Generator, packed: bool) -> Sizes:
    queries, groups = int(rng.choice([1, 2, 3, 4, 5, 15, 16, 17, 33])), int(rng.integers(1, 3))
    past = int(rng.choice([0, 1, 7, 16, 33])) if rng.random() < 0.5 else None
    fresh = queries if packed else int(rng.choice([1, 3, 8, 16, 31, 47]))
    if past and not packed and rng.random() < 0.3:
        fresh = 0
    heads, size = groups * int(rng.integers(1, 3)), int(rng.choice([1, 5, 16, 20, 32]))
    return Sizes(int(rng.integers(1, 3)), queries, past, fresh, heads, groups, size)


def random_problem(seed: int) -> Problem:
    """Any of them, with sizes that cross vectors and strips."""
    rng = np.random.default_rng(seed)
    packed = bool(rng.random() < 0.4)
    return problem(
        seed,
        _random_sizes(rng, packed),
        packed=packed,
        mask=str(rng.choice(["", "holes", "end"])),
        bias=str(rng.choice(["", "", "x", "h", "l", "hl", "bhl", "bl"])),
        **({"causal": 1} if rng.random() < 0.5 else {}),
    )
