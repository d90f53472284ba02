"""Sharing a model's zeros out among its layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from openwork.sparsity.pattern import BlockPattern


def global_zeros(
    scores: Mapping[str, Tensor], patterns: Mapping[str, BlockPattern], fraction: float, ceiling: float
) -> dict[str, float]:
    """The fraction of zeros of each layer when the blocks of all layers are ranked together."""
    blocks = {name: _blocks(scores[name], pattern).flatten() for name, pattern in patterns.items()}
    sizes = {name: p.rows * p.columns for name, p in patterns.items()}
    wanted = sum(fraction * patterns[n].fraction * len(b) * sizes[n] for n, b in blocks.items())
    names = list(blocks)
    values = torch.cat(
        [torch.sort(blocks[n] / sizes[n]).values[: int(ceiling * len(blocks[n]))] for n in names]
    )
    owner = torch.cat([torch.full((int(ceiling * len(blocks[n])),), i) for i, n in enumerate(names)])
    order = values.argsort(stable=True)
    area = torch.tensor([sizes[n] for n in names])[owner[order]].cumsum(0)
    taken = owner[order][area <= wanted + 1e-6]
    return {n: float((taken == i).sum()) / len(blocks[n]) for i, n in enumerate(names)}


def _blocks(scores: Tensor, pattern: BlockPattern) -> Tensor:
    padded = functional.pad(
        scores, (0, -scores.shape[2] % pattern.columns, 0, -scores.shape[1] % pattern.rows)
    )
    high = padded.shape[1] // pattern.rows
    return padded.reshape(len(padded), high, pattern.rows, -1, pattern.columns).sum(dim=(2, 4))
