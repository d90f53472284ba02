"""One-shot pruning of a whole model: block after block, each calibrated on what the pruned blocks before it
give.

Source of the order: Frantar & Alistarh 2023, "SparseGPT". Only one block's second moments are in memory at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from openwork.batches import Batch, Keep, kept_rows, run_batch
from openwork.precision import bfloat16_is_faster
from openwork.progress import Advance
from openwork.sparsity.gram import GramCollector
from openwork.sparsity.pattern import Pattern
from openwork.sparsity.reconstruction import Reconstructed, reconstruct


@dataclass(frozen=True)
class Calibration:
    """Inputs that stand for what the model will see.

    batches: each a tensor, the positional or the keyword arguments of one forward pass. keep: gives, for a
    batch, which rows count, [batch, length]; None takes the argument named `attention_mask`, and counts all
    where there is none. damping: see `reconstruct`.
    bfloat16: run the forward passes in bfloat16; None measures whether that is faster. Moments stay float32.
    """

    batches: Sequence[Batch]
    keep: Keep | None = None
    damping: float = 0.01
    bfloat16: bool | None = None

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("Calibration needs at least one batch of inputs, but there is none.")


@dataclass
class _Call:
    """What a block is called with for one batch, and which rows of it count."""

    states: Tensor
    rest: tuple[Any, ...]
    keywords: dict[str, Any]
    keep: Tensor | None


class _StopForward(Exception):
    """Ends a forward pass once the first block's inputs are known."""


@torch.no_grad()
def reconstruct_model(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    pattern: Pattern,
    calibration: Calibration,
    advance: Advance,
) -> dict[str, Reconstructed]:
    """Prune `layers` of `model` in place, by `reconstruct`, and return each layer's result.

    `advance` is told after each block how many layers are done. Layers outside the model's chain of blocks
    are pruned after it, all calibrated by the same passes.
    """
    results: dict[str, Reconstructed] = {}

    def prune(collector: GramCollector) -> None:
        results.update(_prune_groups(layers, collector, pattern, calibration.damping))
        advance(len(results), next(reversed(results), ""))

    bfloat16 = bfloat16_is_faster() if calibration.bfloat16 is None else calibration.bfloat16
    with _evaluating(model), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        blocks = find_blocks(model, layers, calibration.batches[0])
        if blocks:
            _prune_chain(model, blocks, layers, calibration, prune)
        rest = {name: layer for name, layer in layers.items() if name not in results}
        if rest:
            prune(_collect_model(model, rest, calibration))
    missing = [name for name in layers if name not in results]
    if missing:
        raise ValueError(f"Calibration never ran the layers {', '.join(missing)}; exclude them from pruning.")
    return results


def _prune_groups(
    layers: Mapping[str, nn.Linear], collector: GramCollector, pattern: Pattern, damping: float
) -> dict[str, Reconstructed]:
    results = {}
    grams = collector.grams
    for leader, names in collector.groups.items():
        for name in names:
            results[name] = reconstruct(layers[name].weight, grams[leader], pattern, damping)
            layers[name].weight.copy_(results[name].weight)
    return results


def _collect_model(
    model: nn.Module, layers: Mapping[str, nn.Linear], calibration: Calibration
) -> GramCollector:
    collector = GramCollector(layers)
    with collector.listening():
        for batch in calibration.batches:
            collector.begin(kept_rows(model, batch, calibration.keep))
            run_batch(model, batch)
    return collector


def _prune_chain(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    layers: Mapping[str, nn.Linear],
    calibration: Calibration,
    prune: Callable[[GramCollector], None],
) -> None:
    calls = [_first_call(model, blocks[0], batch, calibration) for batch in calibration.batches]
    for block in blocks:
        inside = {id(module) for module in block.modules()}
        collector = GramCollector({name: layer for name, layer in layers.items() if id(layer) in inside})
        with collector.listening():
            for call in calls:
                collector.begin(call.keep)
                block(call.states, *call.rest, **call.keywords)
        prune(collector)
        if block is not blocks[-1]:
            for call in calls:
                call.states = block(call.states, *call.rest, **call.keywords)


def _first_call(model: nn.Module, block: nn.Module, batch: Batch, calibration: Calibration) -> _Call:
    calls: list[_Call] = []

    def stop(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        calls.append(_Call(inputs[0], inputs[1:], keywords, kept_rows(model, batch, calibration.keep)))
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
def find_blocks(model: nn.Module, layers: Mapping[str, nn.Linear], batch: Batch) -> list[nn.Module]:
    """The chain of blocks that holds most of `layers`, first to last; empty if there is none.

    A chain is a ModuleList or Sequential with two or more children that hold such layers, where in one pass
    of `batch` each child runs once, takes the tensor that the one before it returned, and shares its other
    arguments.
    """
    wanted = {id(layer) for layer in layers.values()}

    def held(module: nn.Module) -> int:
        return sum(id(inner) in wanted for inner in module.modules())

    containers = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    for container in sorted(containers, key=held, reverse=True):
        blocks = list(container.children())
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


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
