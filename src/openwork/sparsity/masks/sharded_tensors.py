"""Tensors that several processes hold together (DTensor, as FSDP2's `fully_shard` makes them).

A pattern is a rule over a whole weight, so scores are ranked and masks are checked on the whole tensor; what
is multiplied with the weight in every step is sharded as the weight is, and needs no communication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether `tensor` is held by several processes together."""
    # Where torch is built without distributed there is no such module, and nothing is sharded.
    if not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


@torch.no_grad()
def full(tensor: Tensor) -> Tensor:
    """The whole tensor, without gradient; `tensor` itself, detached, where it is not sharded.

    tensor: any shape and dtype. Where it is sharded this is a collective: every process of its mesh must call
    it, and each receives the same values.
    """
    return tensor.full_tensor().detach() if sharded(tensor) else tensor.detach()


@torch.no_grad()
def like(tensor: Tensor, weight: Tensor) -> Tensor:
    """`tensor` held as `weight` is: on its device and, where the weight is sharded, as a DTensor with the
    weight's mesh and placements.

    tensor: any dtype, of the weight's shape, whole and the same in every process, or already sharded. What is
    already held so comes back as it is, and a shard never aliases the whole. A whole tensor is sharded
    without communication; a tensor with other placements is gathered first, which is a collective.
    Raises ValueError for another shape.
    """
    if tensor.shape != weight.shape:
        raise ValueError(
            f"A tensor of shape {list(tensor.shape)} cannot be held like a weight of shape "
            f"{list(weight.shape)}; the shapes must be equal."
        )
    if not sharded(weight):
        return full(tensor).to(weight.device)
    if sharded(tensor) and (tensor.device_mesh, tensor.placements) == (weight.device_mesh, weight.placements):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    # With src_data_rank=None each process cuts its own shard: all hold the same values, so nothing is sent.
    whole = full(tensor).clone()
    return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)
