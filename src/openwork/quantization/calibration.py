"""Calibration: run batches through the float model, watch every layer's input, choose its scale."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from openwork.batches import Batch, Keep, kept_rows, run_batch
from openwork.progress import progress_bar
from openwork.quantization.affine import Activation, choose_affine
from openwork.quantization.conversion import LayerChoice, choose_layers, convert, table
from openwork.quantization.observer import (
    DEFAULT_PERCENTILE,
    Observer,
    ObserverKind,
    RowObserver,
    make_observer,
)
from openwork.quantization.producers import Producers
from openwork.quantization.search import InputQuantization, Sample, search

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantizationOptions:
    """How to choose the scales, and of which layers.

    observer: "output" (the range that disturbs the layer's output least), "max" or "percentile".
    activation: "u8" (with a zero point) or "s8" (symmetric, as TensorRT wants it).
    percentile: of the values kept, for that observer.
    migrate: let "output" choose a multiplier for each input channel where that is free (see `migration`).
    include, exclude: globs over module names; exclude wins.
    """

    observer: ObserverKind = "output"
    activation: Activation = "u8"
    percentile: float = DEFAULT_PERCENTILE
    migrate: bool = True
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass
class _Group:
    """Layers that are fed by the same tensor and so share one observer, hence one scale."""

    observer: Observer
    layers: list[str] = field(default_factory=list)
    folds: bool = True


class Prepared:
    """A model whose layers' inputs are observed while batches run; make it with `prepare`.

    choices: what is quantized and why the rest is not.
    """

    def __init__(self, model: nn.Module, options: QuantizationOptions) -> None:
        self.model, self.options = model, options
        self.choices: tuple[LayerChoice, ...] = choose_layers(model, options.include, options.exclude)
        self.batches = 0
        self._keep: Tensor | None = None
        self._producers = Producers()
        self._groups: dict[str, _Group] = {}
        self._seen: dict[int, tuple[weakref.ref[Tensor], _Group]] = {}

    @property
    def layers(self) -> list[str]:
        """The names of the layers to quantize."""
        return [choice.name for choice in self.choices if choice.quantized]

    def table(self) -> str:
        """The choices as lines of text."""
        return table(self.choices)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, every forward pass of the model is observed."""
        modules = dict(self.model.named_modules())
        handles = [modules[name].register_forward_pre_hook(self._hook(name)) for name in self.layers]
        try:
            with self._producers:
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._seen.clear()

    def observe(self, batch: Batch, keep: Tensor | None = None) -> None:
        """Run one batch through the model, inside `watching`; keep: the rows that count, bool, of the inputs'
        shape without channels."""
        self._keep = keep
        try:
            run_batch(self.model, batch)
        except ValueError as error:
            raise ValueError(f"Calibration batch {self.batches}: {error}") from error
        self.batches += 1
        self._seen.clear()
        self._producers.forget()

    def scales(self) -> dict[str, InputQuantization]:
        """How each layer's input is to be quantized; raises ValueError naming layers without data."""
        missing = [name for name in self.layers if name not in self._groups]
        if missing:
            raise ValueError(
                f"No data reached {', '.join(missing)} in {self.batches} calibration batches, so no scale "
                "can be chosen; calibrate with batches that run these layers, or exclude them."
            )
        chosen = {
            id(group): self._choose(group) for group in {id(g): g for g in self._groups.values()}.values()
        }
        return {name: chosen[id(self._groups[name])] for name in self.layers}

    def groups(self) -> list[list[str]]:
        """The sets of layers that share their input and its scale."""
        unique = {id(group): group.layers for group in self._groups.values()}
        return list(unique.values())

    def _choose(self, group: _Group) -> InputQuantization:
        observer, options = group.observer, self.options
        low, high = observer.range()
        if low == high == 0.0:
            logger.warning(
                "The input of %s was zero throughout calibration; its scale is set to 1.", observer.name
            )
        elif isinstance(observer, RowObserver):
            weight = torch.cat([self._weight(name) for name in group.layers])
            rows = observer.rows
            sample = Sample(rows, observer.channel_low, observer.channel_high, weight, rows @ weight.T)
            return search(sample, options.activation, options.migrate and group.folds, observer.name)
        return InputQuantization(choose_affine(low, high, options.activation))

    def _weight(self, name: str) -> Tensor:
        return self.model.get_parameter(f"{name}.weight" if name else "weight").detach().float().cpu()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._observe(name, inputs[0])

        return observe

    def _observe(self, name: str, x: Tensor) -> None:
        reference, group = self._seen.get(id(x), (None, None))
        if reference is not None and group is not None and reference() is x and self._join(name, group):
            return
        group = self._groups.get(name) or self._new_group(name)
        group.folds &= self._producers.folds(x)
        keep = self._keep
        group.observer.observe(x[keep] if keep is not None and keep.shape == x.shape[:-1] else x)
        self._seen[id(x)] = (weakref.ref(x), group)

    def _join(self, name: str, group: _Group) -> bool:
        """Put the layer into the group that observed its input; False if it belongs to another already."""
        if name not in self._groups:
            self._groups[name] = group
            group.layers.append(name)
        return self._groups[name] is group

    def _new_group(self, name: str) -> _Group:
        options = self.options
        observer = make_observer(options.observer, name, options.percentile, options.activation == "s8")
        self._groups[name] = _Group(observer, [name])
        return self._groups[name]


def prepare(model: nn.Module, options: QuantizationOptions | None = None) -> Prepared:
    """Choose the layers of the model to quantize and make an observer for the input of each.

    Raises ValueError for a glob that names no layer, and if no layer is left.
    """
    return Prepared(model, options or QuantizationOptions())


def calibrate(
    prepared: Prepared, batches: Iterable[Batch], keep: Keep | None = None, progress: bool = False
) -> dict[str, InputQuantization]:
    """Run the batches through the float model and choose how every layer's input is quantized.

    batches: each a tensor, a sequence of arguments or a mapping of keyword arguments of the model.
    keep: gives the rows of a batch that count, such as [batch, length]; None takes the argument named
    `attention_mask`, where there is one, so that padding does not count.
    progress: show a bar on the standard error stream.
    Raises ValueError if there is no batch, a layer is never reached, or an input holds NaN or infinity.
    """
    training = prepared.model.training
    prepared.model.eval()
    try:
        with prepared.watching(), torch.inference_mode(), _advancing(batches, progress) as counted:
            for batch in counted:
                prepared.observe(batch, kept_rows(prepared.model, batch, keep))
        return _finish(prepared)
    finally:
        prepared.model.train(training)


def quantize(
    model: nn.Module,
    batches: Iterable[Batch],
    options: QuantizationOptions | None = None,
    keep: Keep | None = None,
    progress: bool = False,
) -> nn.Module:
    """A fake-quantized copy of the model: prepare, calibrate and convert in one call; raises as they do."""
    return convert(model, calibrate(prepare(model, options), batches, keep, progress))


@torch.inference_mode()
def _finish(prepared: Prepared) -> dict[str, InputQuantization]:
    if prepared.batches == 0:
        raise ValueError("Calibration needs at least one batch of data, but none came.")
    if prepared.batches == 1:
        logger.warning(
            "Calibration saw one batch only; ranges such as that of %s may be too narrow.", prepared.layers[0]
        )
    return prepared.scales()


@contextmanager
def _advancing(batches: Iterable[Batch], shown: bool) -> Iterator[Iterator[Batch]]:
    total = len(batches) if isinstance(batches, Sized) else 0
    with progress_bar("Calibrating", total, shown) as advance:

        def counted() -> Iterator[Batch]:
            for done, batch in enumerate(batches, 1):
                yield batch
                advance(done)

        yield counted()
