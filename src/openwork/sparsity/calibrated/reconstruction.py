"""One-shot pruning of one layer by second-order reconstruction.

The weights that stay are changed so that the layer's output on calibration inputs stays as near as possible
to what it was: minimise tr((W' - W) H (W' - W)^T), H = X^T X, over W' that keeps to the pattern. The columns
are swept from left to right as in SparseGPT (Frantar & Alistarh 2023, section 3.3, lazy batch updates section
3.3.2), with one difference: a group's weights are not judged one by one but eliminated one after the other,
each with its exact effect on the others of its group (optimal brain surgeon, Hassibi & Stork 1993), and all
of a group's removals are compensated jointly. Patterns that speak of more than one row's groups (blocks,
transposable ones) get their mask first, by the paper's w^2 / (H^-1)_jj, and the paper's sweep after it.

A stack of matrices (`view.py`) is swept as wide matrices [out, taps * in], one for each group of inputs, with
the taps one after the other, so that the taps compensate each other and no group of a pattern spans two taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openwork.patterns.pattern import BlockPattern, GroupPattern, Pattern
from openwork.sparsity.calibrated.sweep import inverse_root, sweep_groups, sweep_masked
from openwork.sparsity.masks.mask import best_mask, check_weight


@dataclass(frozen=True)
class Reconstructed:
    """A pruned weight.

    weight: f32, of the shape that was given, zero where not kept. mask: bool of the same shape. error: what
    the layer's output on the calibration inputs lost, as a fraction of its energy: tr(D H D^T) / tr(W H W^T),
    D the change of the weight.
    """

    weight: Tensor
    mask: Tensor
    error: float


def reconstruct(weight: Tensor, gram: Tensor, pattern: Pattern, damping: float = 0.01) -> Reconstructed:
    """Prune `weight` to `pattern` and adapt what stays to the inputs that `gram` sums up.

    weight: floating point [out, in], or a stack [taps * groups, out, in] with the groups innermost. gram:
    [C, C] or [groups, C, C] with C = taps * in, X^T X (any positive multiple) of the inputs X [rows, C] of
    each group, taps outermost. damping: added to the diagonal of gram, as a fraction of its mean; larger
    trusts the calibration less. Raises ValueError for shapes that do not fit, NaN or infinity, an all-zero
    gram, damping that is not positive.
    """
    stack, grams = _checked(weight, gram)
    with torch.autocast(weight.device.type, enabled=False):
        wide = _wide(stack, len(grams))
        roots = inverse_roots(grams, wide.shape[2], damping)
        pruned, mask = _pruned(wide, stack.shape, roots, pattern)
        error = _lost(wide, pruned, grams)
    return _shaped(pruned, mask, error, weight, stack)


def adapt_to_mask(weight: Tensor, gram: Tensor, mask: Tensor, damping: float = 0.01) -> Reconstructed:
    """Zero what `mask` drops and adapt what stays, as SparseGPT does for a mask that is given.

    weight, gram, damping: as in `reconstruct`, which raises the same errors. mask: bool,
    of the weight's shape.
    """
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"The mask of a weight of shape {list(weight.shape)} must be boolean and of the same shape, but "
            f"it is {mask.dtype} of shape {list(mask.shape)}."
        )
    stack, grams = _checked(weight, gram)
    with torch.autocast(weight.device.type, enabled=False):
        wide, kept = _wide(stack, len(grams)), _wide(mask.reshape(stack.shape), len(grams))
        roots = inverse_roots(grams, wide.shape[2], damping)
        pruned = torch.stack([sweep_masked(*parts) for parts in zip(wide, roots, kept, strict=True)])
        error = _lost(wide, pruned, grams)
    return _shaped(pruned, kept, error, weight, stack)


def output_error(weight: Tensor, pruned: Tensor, gram: Tensor) -> float:
    """tr(D H D^T) / tr(W H W^T) with D = pruned - weight: the lost fraction of the layer's output energy.

    weight, pruned: f32 [out, in] or [taps * groups, out, in]; gram: as in `reconstruct`.
    """
    stack, grams = _stacked(weight), _stacked(gram).float()
    return _lost(_wide(stack, len(grams)), _wide(_stacked(pruned), len(grams)), grams)


def _lost(weight: Tensor, pruned: Tensor, grams: Tensor) -> float:
    lost = energy = 0.0
    for before, after, gram in zip(weight, pruned, grams.float(), strict=True):
        change = after - before
        lost += float(((change @ gram) * change).sum())
        energy += float(((before @ gram) * before).sum())
    return lost / energy if energy > 0 else 0.0


def _checked(weight: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    check_weight(weight)
    if weight.ndim > 3:
        raise ValueError(
            f"A weight must be a matrix [out, in] or a stack of them [stack, out, in], but its shape is "
            f"{list(weight.shape)}; read convolutions through `WeightView`."
        )
    stack, grams = _stacked(weight.detach().float()), _stacked(gram)
    if len(stack) % max(1, len(grams)):
        raise ValueError(
            f"A stack of {len(stack)} matrices cannot belong to {len(grams)} groups of inputs, of which it "
            "must be a multiple."
        )
    return stack, grams


def _stacked(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 3 else tensor[None]


def _wide(stack: Tensor, groups: int) -> Tensor:
    """[taps * groups, out, in] as [groups, out, taps * in]."""
    _, rows, columns = stack.shape
    return stack.reshape(-1, groups, rows, columns).permute(1, 2, 0, 3).reshape(groups, rows, -1)


def _narrow(wide: Tensor, shape: torch.Size) -> Tensor:
    """The stack of `shape` that `wide` was made of."""
    groups = len(wide)
    split = wide.reshape(groups, shape[1], shape[0] // groups, shape[2])
    return split.permute(2, 0, 1, 3).reshape(shape)


def _shaped(pruned: Tensor, mask: Tensor, error: float, weight: Tensor, stack: Tensor) -> Reconstructed:
    parts = [_narrow(part, stack.shape).reshape(weight.shape) for part in (pruned, mask)]
    return Reconstructed(parts[0], parts[1], error)


def _pruned(wide: Tensor, shape: torch.Size, roots: list[Tensor], pattern: Pattern) -> tuple[Tensor, Tensor]:
    """The pruned weight and its mask, [groups, out, taps * in], of a stack of `shape`."""
    if isinstance(pattern, GroupPattern) and not pattern.transposable:
        pairs = [sweep_groups(w, root, pattern, shape[2]) for w, root in zip(wide, roots, strict=True)]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])
    if not isinstance(pattern, GroupPattern | BlockPattern):
        raise TypeError(f"{type(pattern).__name__} is not a pattern that a weight can be reconstructed for.")
    diagonals = torch.stack([root.square().sum(dim=0) for root in roots])
    scores = _narrow(wide.square() / diagonals[:, None, :], shape)
    mask = _wide(best_mask(scores, pattern), len(wide))
    swept = [sweep_masked(*parts) for parts in zip(wide, roots, mask, strict=True)]
    return torch.stack(swept), mask


def inverse_roots(grams: Tensor, columns: int, damping: float) -> list[Tensor]:
    """The root of each group's damped inverse, f32, for a layer with `columns` inputs."""
    if grams.shape[1:] != (columns, columns):
        raise ValueError(
            f"The gram matrix of a layer with {columns} input channels must have the shape "
            f"[{columns}, {columns}], but it has {list(grams.shape[1:])}."
        )
    if not damping > 0:
        raise ValueError(f"damping must be positive, but it is {damping}.")
    if not torch.isfinite(grams).all():
        raise ValueError("The gram matrix holds NaN or infinity; look for them in the calibration inputs.")
    means = grams.diagonal(dim1=1, dim2=2).double().mean(dim=1)
    if not means.max() > 0:
        raise ValueError("The gram matrix is zero; the calibration inputs of this layer are all zero.")
    # A group of channels that is never on has no mean of its own; any damping serves it.
    means = torch.where(means > 0, means, means.max())
    identity = torch.eye(columns, dtype=torch.float64, device=grams.device)
    return [
        inverse_root(gram.double() + identity * (damping * mean)).float()
        for gram, mean in zip(grams, means, strict=True)
    ]
