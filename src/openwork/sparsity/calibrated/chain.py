"""Chains of blocks in a model: modules that run one after the other, each on what the one before it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from openwork.sparsity.masks.prunable import Prunable
from openwork.support.batches import Batch, run_batch


@dataclass
class BlockCall:
    """What a block is called with for one batch, and which rows of it count."""

    states: Tensor
    rest: tuple[Any, ...]
    keywords: dict[str, Any]
    keep: Tensor | None


class _StopForward(Exception):
    """Ends a forward pass once the first block's inputs are known."""


def first_call(model: nn.Module, block: nn.Module, batch: Batch, keep: Tensor | None) -> BlockCall:
    """What `block` is called with when the model runs `batch`; the pass ends there."""
    calls: list[BlockCall] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(BlockCall(inputs[0], inputs[1:], keywords, keep))
        raise _StopForward

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run_batch(model, batch)
    except _StopForward:
        pass
    finally:
        handle.remove()
    return calls[0]


@torch.no_grad()
def find_blocks(model: nn.Module, layers: Mapping[str, Prunable], batch: Batch) -> list[nn.Module]:
    """The chain of blocks that holds at least half of `layers`, first to last; empty if there is none.

    A chain is a ModuleList or Sequential with two or more children that hold such layers, where in one pass
    of `batch` each child runs once, takes the tensor that the one before it returned, and shares its other
    arguments.
    """
    wanted = [id(layer.module) for layer in layers.values()]

    def held(module: nn.Module) -> int:
        inside = {id(inner) for inner in module.modules()}
        return sum(module in inside for module in wanted)

    containers = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    for container in sorted(containers, key=held, reverse=True):
        blocks = list(container.children())
        if 2 * held(container) < len(wanted):
            break
        if sum(held(block) > 0 for block in blocks) >= 2 and _is_chain(model, blocks, batch):
            return blocks
    return []


def _is_chain(model: nn.Module, blocks: Sequence[nn.Module], batch: Batch) -> bool:
    calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]] = []
    handles = [
        block.register_forward_hook(
            lambda module, inputs, keywords, output: calls.append((module, inputs, keywords, output)),
            with_kwargs=True,
        )
        for block in blocks
    ]
    try:
        run_batch(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if [id(call[0]) for call in calls] != [id(block) for block in blocks] or not all(
        call[1] for call in calls
    ):
        return False
    return all(_follows(before, after) for before, after in pairwise(calls))


def _follows(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    _, inputs, keywords, output = before
    _, next_inputs, next_keywords, _ = after
    same_rest = [id(x) for x in inputs[1:]] == [id(x) for x in next_inputs[1:]]
    same_keywords = {k: id(v) for k, v in keywords.items()} == {k: id(v) for k, v in next_keywords.items()}
    return isinstance(output, Tensor) and next_inputs[0] is output and same_rest and same_keywords
