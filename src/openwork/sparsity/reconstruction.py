"""One-shot pruning of one layer by second-order reconstruction.

The weights that stay are changed so that the layer's output on calibration inputs stays as near as possible
to what it was: minimise tr((W' - W) H (W' - W)^T), H = X^T X, over W' that keeps to the pattern. The columns
are swept from left to right as in SparseGPT (Frantar & Alistarh 2023, section 3.3, lazy batch updates section
3.3.2), with one difference: a group's weights are not judged one by one but eliminated one after the other,
each with its exact effect on the others of its group (optimal brain surgeon, Hassibi & Stork 1993), and all
of a group's removals are compensated jointly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from openwork.sparsity.mask import best_mask, check_weight
from openwork.sparsity.pattern import BlockPattern, GroupPattern, Pattern

# Columns whose updates of everything to their right are collected into one product.
_PANEL = 128
# Elements of the inverse Hessians that one elimination works on: 1 MiB of float32, which stays in the L2
# cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Reconstructed:
    """A pruned weight.

    weight: f32 [out, in], zero where not kept. mask: bool [out, in]. error: what the layer's output on the
    calibration inputs lost, as a fraction of its energy: tr(D H D^T) / tr(W H W^T), D the change of the
    weight.
    """

    weight: Tensor
    mask: Tensor
    error: float


def reconstruct(weight: Tensor, gram: Tensor, pattern: Pattern, damping: float = 0.01) -> Reconstructed:
    """Prune `weight` to `pattern` and adapt what stays to the inputs that `gram` sums up.

    weight: floating point [out, in]. gram: [in, in], X^T X (any positive multiple) of the layer's inputs X
    [rows, in]. damping: added to the diagonal of gram, as a fraction of its mean; larger trusts the
    calibration less. Raises ValueError for shapes that do not fit, NaN or infinity, an all-zero gram, damping
    that is not positive.
    """
    check_weight(weight)
    with torch.autocast(weight.device.type, enabled=False):
        return _reconstruct(weight.detach().float(), gram, pattern, damping)


def _reconstruct(original: Tensor, gram: Tensor, pattern: Pattern, damping: float) -> Reconstructed:
    inverse_root = _inverse_root(_damped(gram, original.shape[1], damping)).float()
    if isinstance(pattern, GroupPattern):
        pruned, mask = _sweep_groups(original, inverse_root, pattern)
    elif isinstance(pattern, BlockPattern):
        pruned, mask = _sweep_masked(original, inverse_root, pattern)
    else:
        raise TypeError(f"{type(pattern).__name__} is not a pattern that a weight can be reconstructed for.")
    return Reconstructed(pruned, mask, output_error(original, pruned, gram))


def output_error(weight: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """tr(D H D^T) / tr(W H W^T) with D = pruned - weight: the lost fraction of the layer's output energy."""
    gram = gram.float()
    change = pruned - weight
    lost = ((change @ gram) * change).sum()
    energy = ((weight @ gram) * weight).sum()
    return float(lost / energy) if energy > 0 else 0.0


def _damped(gram: Tensor, columns: int, damping: float) -> Tensor:
    if gram.shape != (columns, columns):
        raise ValueError(
            f"The gram matrix of a layer with {columns} input channels must have the shape "
            f"[{columns}, {columns}], but it has {list(gram.shape)}."
        )
    if not damping > 0:
        raise ValueError(f"damping must be positive, but it is {damping}.")
    gram = gram.double()
    if not torch.isfinite(gram).all():
        raise ValueError("The gram matrix holds NaN or infinity; look for them in the calibration inputs.")
    mean = gram.diagonal().mean()
    if not mean > 0:
        raise ValueError("The gram matrix is zero; the calibration inputs of this layer are all zero.")
    return gram + torch.eye(columns, dtype=gram.dtype, device=gram.device) * (damping * mean)


def _inverse_root(hessian: Tensor) -> Tensor:
    """The upper triangular U with U^T U = hessian^-1.

    For every i, U[i:, i:]^T U[i:, i:] is the inverse of hessian[i:, i:], which is what a sweep from the left
    needs. U is the inverse of the upper R with R R^T = hessian, and R is the Cholesky factor of the reversed
    matrix, reversed.
    """
    upper = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(upper), dtype=upper.dtype, device=upper.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse


def _sweep_groups(weight: Tensor, inverse_root: Tensor, pattern: GroupPattern) -> tuple[Tensor, Tensor]:
    pruned, mask = weight.clone(), torch.ones_like(weight, dtype=torch.bool)
    panel = pattern.group * max(1, _PANEL // pattern.group)
    for start in range(0, weight.shape[1], panel):
        end = min(start + panel, weight.shape[1])
        errors = torch.empty_like(pruned[:, start:end])
        for left in range(start, end, pattern.group):
            right = min(left + pattern.group, end)
            root = inverse_root[left:right, left:right]
            group, kept = _eliminate(pruned[:, left:right], root.T @ root, pattern)
            error = torch.linalg.solve_triangular(root, group - pruned[:, left:right], upper=True, left=False)
            pruned[:, left:right], mask[:, left:right] = group, kept
            pruned[:, right:end] += error @ inverse_root[left:right, right:end]
            errors[:, left - start : right - start] = error
        pruned[:, end:] += errors @ inverse_root[start:end, end:]
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
    """weight [g, V, m]; inverse [m, m]. The weight with `removals` columns at zero for each g, and the kept
    [g, m].
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


def _sweep_masked(weight: Tensor, inverse_root: Tensor, pattern: BlockPattern) -> tuple[Tensor, Tensor]:
    """Fix the mask first, by w^2 / (H^-1)_jj, then sweep the columns one by one."""
    mask = best_mask(weight.square() / inverse_root.square().sum(dim=0), pattern)
    pruned = weight.clone()
    for start in range(0, weight.shape[1], _PANEL):
        end = min(start + _PANEL, weight.shape[1])
        errors = torch.empty_like(pruned[:, start:end])
        for column in range(start, end):
            error = -pruned[:, column].masked_fill(mask[:, column], 0.0) / inverse_root[column, column]
            pruned[:, column:end] += torch.outer(error, inverse_root[column, column:end])
            errors[:, column - start] = error
        pruned[:, end:] += errors @ inverse_root[start:end, end:]
    return pruned.masked_fill(~mask, 0.0), mask
