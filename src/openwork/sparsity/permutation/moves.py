"""Moving the channels of stored tensors, and putting everything back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from openwork.sparsity.permutation.graph import ChannelClass
from openwork.sparsity.permutation.relations import Use
from openwork.sparsity.permutation.sorting_network import parted

# What the pruner keeps beside a parameter, by the ends of its name; it moves with the parameter.
MASK = "_mask"
# What the search keeps beside it; no attribute of a module can be called so.
IMPORTANCE = "@importance"
COMPANIONS = (MASK, "_dense", IMPORTANCE)


@dataclass(frozen=True)
class Move:
    """A change of places in one tensor: `index[p]`, i64, is what comes to place p of the use's count."""

    use: Use
    index: Tensor


def moves(channels: ChannelClass, slots: np.ndarray, order: Tensor, sizes: Mapping[Use, int]) -> list[Move]:
    """What putting the channels at `slots` into `order` does to each tensor."""
    chosen = np.arange(channels.channels)
    chosen[slots] = slots[order.numpy()]
    found = []
    for use, places in channels.places.items():
        index = np.arange(sizes[use])
        index[places] = places[:, chosen]
        found.append(Move(use, torch.as_tensor(index)))
    return found


def moved(tensor: Tensor, move: Move) -> Tensor:
    """A tensor with its channels in their new places."""
    index = move.index.to(tensor.device)
    if move.use.family == "axis":
        return tensor.index_select(move.use.axis, index)
    if move.use.family == "elements":
        return tensor.reshape(-1)[index].view(tensor.shape)
    blocks = parted(tensor, 0, move.use.axis)
    within = index.view(len(blocks), -1) % tensor.shape[1]
    return torch.stack(
        [block.index_select(1, places) for block, places in zip(blocks, within, strict=True)]
    ).flatten(0, 1)


def counted(use: Use, tensor: Tensor) -> int:
    """How many places a use counts."""
    if use.family == "axis":
        return tensor.shape[use.axis]
    return tensor.numel() if use.family == "elements" else use.axis * tensor.shape[1]


class Store:
    """A model's tensors by name, with their companions, as they were and as they are."""

    def __init__(self, tensors: Mapping[str, Tensor], touched: Sequence[str]) -> None:
        self._all = tensors
        self._before = {
            name: tensors[name].detach().clone() for each in touched for name in self._family(each)
        }

    def _family(self, name: str) -> list[str]:
        shape = self._all[name].shape
        companions = [name + end for end in COMPANIONS if name + end in self._all]
        return [name, *(each for each in companions if self._all[each].shape == shape)]

    @torch.no_grad()
    def apply(self, some: Sequence[Move]) -> None:
        for move in some:
            for name in self._family(move.use.tensor):
                self._all[name].copy_(moved(self._all[name], move))

    @torch.no_grad()
    def restore(self) -> None:
        """Put every tensor back, bit for bit."""
        for name, tensor in self._before.items():
            self._all[name].copy_(tensor)


@torch.no_grad()
def move_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, some: Sequence[Move]) -> None:
    """Move what an optimizer remembers of each weight (momentum, variances) with the weight."""
    parameters = dict(model.named_parameters())
    for move in some:
        parameter = parameters.get(move.use.tensor)
        state = optimizer.state.get(parameter, {}) if parameter is not None else {}
        for value in state.values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:  # type: ignore[union-attr]
                value.copy_(moved(value, move))
