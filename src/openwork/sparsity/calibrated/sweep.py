"""The sweeps of second-order reconstruction: columns from left to right, each passing its error on.

All work on one matrix [out, columns] and the upper triangular root of its inverse Hessian;
`reconstruction.py` says where they come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from openwork.patterns.pattern import GroupPattern

# Columns whose updates of everything to their right are collected into one product.
_PANEL = 128
# Elements of the inverse Hessians that one elimination works on: 1 MiB of float32,
# which stays in the L2 cache.
_CHUNK = 1 << 18


def inverse_root(hessian: Tensor) -> Tensor:
    """The upper triangular U with U^T U = hessian^-1.

    For every i, U[i:, i:]^T U[i:, i:] is the inverse of hessian[i:, i:], which is what a sweep from the left
    needs. U is the inverse of the upper R with R R^T = hessian, and R is the Cholesky factor of the reversed
    matrix, reversed.
    """
    upper = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse


def _spans(columns: int, inside: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last column of the groups of `width`, which end with every `inside` columns."""
    for tap in range(0, columns, inside):
        for left in range(tap, tap + inside, width):
            yield left, min(left + width, tap + inside)


def sweep_groups(weight: Tensor, root: Tensor, pattern: GroupPattern, inside: int) -> tuple[Tensor, Tensor]:
    """inside: the columns of one kernel tap; groups lie within one."""
    pruned, mask = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    spans = list(_spans(weight.shape[1], inside, pattern.group))
    panel = max(1, _PANEL // pattern.group)
    for first in range(0, len(spans), panel):
        inner = spans[first : first + panel]
        start, end = inner[0][0], inner[-1][1]
        errors = torch.empty_like(pruned[:, start:end])
        for left, right in inner:
            own = root[left:right, left:right]
            group, kept = _eliminate(pruned[:, left:right], own.T @ own, pattern)
            error = torch.linalg.solve_triangular(own, group - pruned[:, left:right], upper=True, left=False)
            pruned[:, left:right], mask[:, left:right] = group, kept
            pruned[:, right:end] += error @ root[left:right, right:end]
            errors[:, left - start : right - start] = error
        pruned[:, end:] += errors @ root[start:end, end:]
    return pruned, mask


def _eliminate(weight: Tensor, inverse: Tensor, pattern: GroupPattern) -> tuple[Tensor, Tensor]:
    """Remove the weights of one group [out, M] that cost least, one by one, and adapt those that stay."""
    rows, width = weight.shape
    grouped = functional.pad(weight, (0, 0, 0, -rows % pattern.shared)).reshape(-1, pattern.shared, width)
    size = max(1, _CHUNK // (width * width))
    chunks = [grouped[i : i + size].clone() for i in range(0, len(grouped), size)]
    parts = [_eliminate_chunk(chunk, inverse, width - pattern.kept) for chunk in chunks]
    adapted = torch.cat([part for part, _ in parts]).flatten(0, 1)[:rows]
    kept = torch.cat([part for _, part in parts]).repeat_interleave(pattern.shared, dim=0)[:rows]
    return adapted, kept


def _eliminate_chunk(weight: Tensor, inverse: Tensor, removals: int) -> tuple[Tensor, Tensor]:
    """weight [g, V, m]; inverse [m, m]. The weight with `removals` columns at zero for each g,
    and the kept [g, m].
    """
    removed = torch.zeros(weight.shape[0], weight.shape[2], dtype=torch.bool, device=weight.device)
    inverses = inverse.expand(weight.shape[0], -1, -1)
    rows = torch.arange(weight.shape[0], device=weight.device)
    for step in range(removals):
        diagonal = inverses.diagonal(dim1=1, dim2=2)
        cost = weight.square().sum(dim=1) / diagonal
        worst = cost.masked_fill(removed, torch.inf).argmin(dim=1)
        direction = inverses[rows, worst] / diagonal[rows, worst, None]
        weight -= weight[rows, :, worst][:, :, None] * direction[:, None, :]
        removed[rows, worst] = True
        if step + 1 < removals:
            inverses = inverses - inverses[rows, worst][:, :, None] * direction[:, None, :]
    return weight.masked_fill(removed[:, None, :], 0.0), ~removed


def sweep_masked(weight: Tensor, root: Tensor, mask: Tensor) -> Tensor:
    """Sweep the columns one by one, removing what `mask` drops."""
    pruned = weight.clone()
    for start in range(0, weight.shape[1], _PANEL):
        end = min(start + _PANEL, weight.shape[1])
        errors = torch.empty_like(pruned[:, start:end])
        for column in range(start, end):
            error = -pruned[:, column].masked_fill(mask[:, column], 0.0) / root[column, column]
            pruned[:, column:end] += torch.outer(error, root[column, column:end])
            errors[:, column - start] = error
        pruned[:, end:] += errors @ root[start:end, end:]
    return pruned.masked_fill(~mask, 0.0)
