"""Putting masks on weights, gradients and optimizer states, in place and shard by shard."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from openwork.sparsity.masks.prunable import Prunable
from openwork.sparsity.masks.sharded_tensors import full, like, sharded


def mask_of(prunable: Prunable) -> Tensor:
    """The mask, held as the weight is: after `fully_shard` the buffer becomes a DTensor like the weight.

    Raises ValueError for a mask of another shape than the weight.
    """
    mask, weight = prunable.mask, prunable.weight
    if mask.shape != weight.shape:
        raise ValueError(
            f"The mask of {prunable.name} has the shape {list(mask.shape)}, but its weight has "
            f"{list(weight.shape)}; a mask has its weight's shape."
        )
    if sharded(weight) != sharded(mask) or mask.device != weight.device:
        mask = like(mask, weight)
        prunable.set_mask(mask)
    return mask


@torch.no_grad()
def multiply(tensor: Tensor, mask: Tensor) -> None:
    """Zero `tensor` in place where `mask`, bool of its shape and held like it, is false."""
    # A product with bytes takes half the time of one with booleans, which go through a conversion.
    _local(tensor).mul_(_local(mask).view(torch.uint8))


def hold(prunable: Prunable) -> None:
    """Zero every weight that the mask drops."""
    multiply(prunable.weight, mask_of(prunable))


def clear_states(prunable: Prunable, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Zero the optimizers' states (momentum and the like) of the weights that the mask drops.

    A weight that is pruned would otherwise be pushed on by what its gradients were before.
    """
    weight, mask = prunable.weight, mask_of(prunable)
    for optimizer in optimizers:
        for state in optimizer.state.get(weight, {}).values():
            if isinstance(state, Tensor) and state.shape == weight.shape:
                multiply(state, mask)


def whole_mask(prunable: Prunable) -> Tensor:
    """The mask as a whole tensor; a collective where the weight is sharded."""
    return full(mask_of(prunable))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if sharded(tensor) else tensor
