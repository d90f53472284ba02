"""One-shot pruning of a whole model on calibration inputs: part after part, each calibrated on what the
pruned parts before it give.

Where most of the layers lie in a chain of blocks, as in a transformer, the parts are the blocks, and only one
block's moments are in memory at a time. Else, as in a convolutional network with its stages, the layers are
taken in the order in which they run, as many at a time as `Calibration.memory` has room for, and the whole
model runs for each part. Source of the order: Frantar & Alistarh 2023, "SparseGPT".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.sparsity.calibrated.chain import find_blocks, first_call
from openwork.sparsity.calibrated.gram import GramCollector
from openwork.sparsity.calibrated.layer_inputs import InputReader, readable, readers
from openwork.sparsity.calibrated.reconstruction import Reconstructed, reconstruct
from openwork.sparsity.masks.prunable import Prunable
from openwork.support.batches import Batch, Keep, evaluating, kept_rows, run_batch
from openwork.support.precision import bfloat16_is_faster
from openwork.support.progress import Advance


@dataclass(frozen=True)
class Calibration:
    """Inputs that stand for what the model will see.

    batches: each a tensor, the positional or the keyword arguments of one forward pass. keep: gives, for a
    batch, which rows count, [batch, length]; None takes the argument named `attention_mask`, and counts all
    where there is none; layers whose outputs have other positions, as convolutions have, count all. damping:
    see `reconstruct`. bfloat16: run the forward passes in bfloat16; None measures whether that is faster.
    Moments stay float32. memory: bytes of second moments gathered in one pass over the batches, at least one
    layer's; less means more passes, and later layers calibrated on more of the pruning.
    """

    batches: Sequence[Batch]
    keep: Keep | None = None
    damping: float = 0.01
    bfloat16: bool | None = None
    memory: int = 1 << 30

    def __post_init__(self) -> None:
        if not self.batches:
            raise ValueError("Calibration needs at least one batch of inputs, but there is none.")


@dataclass(frozen=True)
class Method:
    """How one weight is pruned once the moments of its inputs are known.

    diagonal: whether it needs their diagonal alone. prune: of a weight and its moments, f32 [groups, columns,
    columns], or [groups, columns] of a diagonal.
    """

    diagonal: bool
    prune: Callable[[Prunable, Tensor], Reconstructed]


# Runs a part of the model on the first so many batches (None: all), after telling which rows count.
_Pass = Callable[[Callable[[Tensor | None], None], int | None], None]


def reconstruct_model(
    model: nn.Module, layers: Mapping[str, Prunable], calibration: Calibration, advance: Advance
) -> dict[str, Reconstructed]:
    """Prune `layers` of `model` in place, each to its own pattern by `reconstruct`, and return each one's
    result, of its weight's shape.

    advance: told after each layer how many are done. Layers outside the model's chain of blocks are pruned
    after it. Where it raises, the weights may be changed in part. Raises ValueError for layers that never ran
    or whose inputs cannot be read (`input_reason`).
    """

    def prune(layer: Prunable, gram: Tensor) -> Reconstructed:
        matrices = layer.view.matrices(layer.weight.detach())
        found = reconstruct(matrices, gram, layer.pattern, calibration.damping)
        return Reconstructed(layer.view.restore(found.weight), layer.view.restore(found.mask), found.error)

    return prune_model(model, layers, calibration, advance, Method(False, prune))


@torch.no_grad()
def prune_model(
    model: nn.Module,
    layers: Mapping[str, Prunable],
    calibration: Calibration,
    advance: Advance,
    method: Method,
) -> dict[str, Reconstructed]:
    """What `reconstruct_model` does, by any method that needs the moments of the layers' inputs."""
    readable(model, layers)
    results: dict[str, Reconstructed] = {}
    pruning = _Pruning(model, calibration, method, results, advance)
    bfloat16 = bfloat16_is_faster() if calibration.bfloat16 is None else calibration.bfloat16
    with evaluating(model), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        blocks = find_blocks(model, layers, calibration.batches[0])
        if blocks:
            _prune_chain(pruning, blocks, layers)
        rest = {name: layer for name, layer in layers.items() if name not in results}
        _prune_parts(pruning, rest, _model_pass(model, calibration))
    missing = [name for name in layers if name not in results]
    if missing:
        raise ValueError(f"Calibration never ran the layers {', '.join(missing)}; exclude them from pruning.")
    return results


@dataclass(frozen=True)
class _Pruning:
    """What stays the same while a model is pruned."""

    model: nn.Module
    calibration: Calibration
    method: Method
    results: dict[str, Reconstructed]
    advance: Advance


def _prune_chain(pruning: _Pruning, blocks: Sequence[nn.Module], layers: Mapping[str, Prunable]) -> None:
    model, calibration = pruning.model, pruning.calibration
    calls = [
        first_call(model, blocks[0], batch, kept_rows(model, batch, calibration.keep))
        for batch in calibration.batches
    ]
    for block in blocks:
        inside = {id(module) for module in block.modules()}

        def run(begin: Callable[[Tensor | None], None], limit: int | None, block: nn.Module = block) -> None:
            for call in calls[:limit]:
                begin(call.keep)
                # A block may work on its input in place, and is to run on the same one again.
                block(call.states.clone(), *call.rest, **call.keywords)

        _prune_parts(pruning, {n: layer for n, layer in layers.items() if id(layer.module) in inside}, run)
        if block is not blocks[-1]:
            for call in calls:
                call.states = block(call.states, *call.rest, **call.keywords)


def _model_pass(model: nn.Module, calibration: Calibration) -> _Pass:
    def run(begin: Callable[[Tensor | None], None], limit: int | None) -> None:
        for batch in calibration.batches[:limit]:
            begin(kept_rows(model, batch, calibration.keep))
            run_batch(model, batch)

    return run


def _prune_parts(pruning: _Pruning, layers: Mapping[str, Prunable], run: _Pass) -> None:
    """Prune `layers`, whose modules all run in `run`, as many at a time as memory allows."""
    found = {name: readers(pruning.model, layer) for name, layer in layers.items()}
    for part in _parts(found, run, pruning):
        collector = GramCollector(
            {_key(name, i): reader for name in part for i, reader in enumerate(found[name])},
            pruning.method.diagonal,
        )
        with collector.listening():
            run(collector.begin, None)
        for name in part:
            grams = [collector.gram(_key(name, i)) for i in range(len(found[name]))]
            ran = [gram for gram in grams if gram is not None]
            if len(ran) == len(grams):
                _prune_layer(pruning, name, layers[name], torch.cat(ran))


def _key(name: str, projection: int) -> str:
    return f"{name}[{projection}]" if projection else name


def _prune_layer(pruning: _Pruning, name: str, layer: Prunable, gram: Tensor) -> None:
    result = pruning.method.prune(layer, gram)
    layer.weight.copy_(result.weight)
    pruning.results[name] = result
    pruning.advance(len(pruning.results), name)


def _parts(found: Mapping[str, list[InputReader]], run: _Pass, pruning: _Pruning) -> Iterator[list[str]]:
    """The layers' names in parts that fit in memory; in the order in which they run if there are several."""
    sizes = {name: sum(map(_size, own)) for name, own in found.items()}
    names, memory = list(found), pruning.calibration.memory
    if sum(sizes.values()) > memory and not pruning.method.diagonal:
        names = _in_order(found, run)
    else:
        memory = sum(sizes.values())
    part: list[str] = []
    for name in names:
        if part and sum(sizes[other] for other in part) + sizes[name] > memory:
            yield part
            part = []
        part.append(name)
    if part:
        yield part


def _size(reader: InputReader) -> int:
    """Bytes of the moments of one reader, as if it shared them with none."""
    return 4 * reader.groups * reader.columns * reader.columns


def _in_order(found: Mapping[str, list[InputReader]], run: _Pass) -> list[str]:
    """The names in the order in which their modules first run; those that do not run come last."""
    order: dict[str, None] = {}
    handles = [
        own[0].host.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, own in found.items()
    ]
    try:
        run(lambda keep: None, 1)
    finally:
        for handle in handles:
            handle.remove()
    return [*order, *(name for name in found if name not in order)]
