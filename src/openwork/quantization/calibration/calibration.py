"""A calibration: batches run through a prepared model, every activation watched, its scale chosen."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from openwork.quantization.calibration.call_ranges import CallRanges
from openwork.quantization.fake_quantization.modules import QuantLinear, migrate
from openwork.quantization.fake_quantization.switches import off, quantizers
from openwork.quantization.observers.merge import merge_across_workers
from openwork.quantization.observers.observer import Observer, make_observer
from openwork.quantization.placement import Group, Prepared
from openwork.quantization.scales.cache import CacheEntry
from openwork.quantization.scales.scale_choice import choose_input, entry
from openwork.quantization.scales.search import InputQuantization
from openwork.support.batches import Batch, run_batch

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


class _Watch:
    """One group's observer, fed once for each tensor, however many places read it."""

    def __init__(self, group: Group) -> None:
        self.group = group
        options, quantizer = group.options, group.quantizer
        self.observer: Observer = make_observer(
            group.observer, quantizer.name, options.percentile, quantizer.symmetric
        )
        self._last: tuple[weakref.ref[Tensor], int] | None = None
        self.calls = CallRanges() if any(slot.several for slot in group.slots) else None

    def take(self, x: Tensor, keep: Tensor | None) -> None:
        """Observe the rows of `x` that count, unless it was the last one observed."""
        if self._last is not None and self._last[0]() is x and self._last[1] == x._version:
            return
        rows = x[keep] if keep is not None and keep.shape == x.shape[:-1] else x
        self.observer.observe(rows)
        if self.calls is not None:
            self.calls.take(rows)
        self._last = weakref.ref(x), x._version


class Calibration:
    """A calibration under way: batches in, scales out. `calibrate` drives it."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.batches = 0
        self._watches = [_Watch(group) for group in prepared.groups]
        self._keep: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, every forward pass of the model computes in float and is observed."""
        off(self.prepared.model)
        handles = [
            watch.group.quantizer.register_forward_pre_hook(self._hook(watch)) for watch in self._watches
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def observe(self, batch: Batch, keep: Tensor | None = None) -> None:
        """Run one batch through the model, inside `watching`; keep: the rows that count, bool, of the inputs'
        shape without channels.
        """
        self._keep = keep
        for watch in self._watches:
            if watch.calls is not None:
                watch.calls.begin()
        try:
            run_batch(self.prepared.model, batch)
        except ValueError as error:
            raise ValueError(f"Calibration batch {self.batches}: {error}") from error
        self.batches += 1

    def finish(self) -> dict[str, CacheEntry]:
        """Choose all scales and turn the quantizers on; with several workers, from the data of all. Returns
        what was chosen by the quantizers' names.
        """
        self._check_batches()
        if _workers() > 1:
            merge_across_workers(
                {f"{i:06d} {w.observer.name}": w.observer for i, w in enumerate(self._watches)}
            )
        self._check_reached()
        chosen = [(watch, self._choose(watch)) for watch in self._watches]
        self._turn_on(chosen)
        return {watch.observer.name: entry(watch.observer, found) for watch, found in chosen}

    def load(self, entries: Mapping[str, CacheEntry]) -> None:
        """Take what was chosen before instead of data, and turn the quantizers on."""
        self._turn_on([(watch, _found(entries[watch.observer.name])) for watch in self._watches])

    def _turn_on(self, chosen: Iterable[tuple[_Watch, InputQuantization]]) -> None:
        for watch, found in chosen:
            self._apply(watch, found)
        for quantizer in quantizers(self.prepared.model):
            quantizer.quantize()

    def _check_batches(self) -> None:
        if self.batches == 0 and _workers() == 1:
            raise ValueError("Calibration needs at least one batch of data, but none came.")
        if self.batches == 1 and _workers() == 1:
            logger.warning(
                "Calibration saw one batch only; ranges such as that of %s may be too narrow.",
                self._watches[0].observer.name,
            )

    def _check_reached(self) -> None:
        missing = [name for w in self._watches if w.observer.values == 0 for name in w.group.names]
        if missing:
            raise ValueError(
                f"No data reached {', '.join(missing)} in {self.batches} calibration batches, so no scale "
                "can be chosen; calibrate with batches that run these layers, or exclude them."
            )

    def _choose(self, watch: _Watch) -> InputQuantization:
        observer, group = watch.observer, watch.group
        if observer.range() == (0.0, 0.0):
            logger.warning(
                "The input of %s was zero throughout calibration; its scale is set to 1.", observer.name
            )
        if watch.calls is not None and (apart := watch.calls.apart()):
            logger.warning("The calls of %s share one quantizer, but %s.", observer.name, apart)
        free = group.options.migrate and group.folds
        return choose_input(observer, group.quantizer.dtype, lambda: self._weights(group), free)

    def _weights(self, group: Group) -> Tensor:
        return torch.cat([_weight(self._linear(name)) for name in group.linear])

    def _apply(self, watch: _Watch, found: InputQuantization) -> None:
        watch.group.quantizer.load_affine(found.affine)
        for name in watch.group.linear:
            migrate(self._linear(name), found.multiplier)

    def _linear(self, name: str) -> QuantLinear:
        layer = self.prepared.model.get_submodule(name)
        assert isinstance(layer, QuantLinear)
        return layer

    def _hook(self, watch: _Watch) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            watch.take(inputs[0], self._keep)

        return observe


def _found(entry: CacheEntry) -> InputQuantization:
    by = entry.multiplier
    return InputQuantization(entry.affine, None if by is None else torch.tensor(by, dtype=torch.float32))


def _weight(layer: QuantLinear) -> Tensor:
    return layer.weight.detach().float().cpu()


def _workers() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
