"""Calibration: run batches through the float model, watch every layer's input, choose its scale."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from openwork.quantization.affine import Activation, Affine, choose_affine
from openwork.quantization.conversion import LayerChoice, choose_layers, convert, table
from openwork.quantization.observer import DEFAULT_PERCENTILE, Observer, ObserverKind, make_observer

logger = logging.getLogger(__name__)

Batch = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class QuantizationOptions:
    """How to choose the scales, and of which layers.

    observer: "max" or "percentile". activation: "s8" (symmetric) or "u8" (with a zero point). percentile: of the values
    kept, for that observer. include, exclude: globs over module names; exclude wins.
    """

    observer: ObserverKind = "percentile"
    activation: Activation = "u8"
    percentile: float = DEFAULT_PERCENTILE
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass
class _Group:
    """Layers that are fed by the same tensor and so share one observer, hence one scale."""

    observer: Observer
    layers: list[str] = field(default_factory=list)


class Prepared:
    """A model whose layers' inputs are observed while batches run; make it with `prepare`.

    choices: what is quantized and why the rest is not.
    """

    def __init__(self, model: nn.Module, options: QuantizationOptions) -> None:
        self.model, self.options = model, options
        self.choices: tuple[LayerChoice, ...] = choose_layers(model, options.include, options.exclude)
        self.batches = 0
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
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._seen.clear()

    def observe(self, batch: Batch) -> None:
        """Run one batch through the model, inside `watching`."""
        try:
            run_batch(self.model, batch)
        except ValueError as error:
            raise ValueError(f"Calibration batch {self.batches}: {error}") from error
        self.batches += 1
        self._seen.clear()

    def scales(self) -> dict[str, Affine]:
        """The affine map of each layer's input; raises ValueError naming the layers that no batch reached."""
        missing = [name for name in self.layers if name not in self._groups]
        if missing:
            raise ValueError(
                f"No data reached {', '.join(missing)} in {self.batches} calibration batches, so no scale can be chosen; "
                "calibrate with batches that run these layers, or exclude them."
            )
        return {name: self._scale(self._groups[name].observer) for name in self.layers}

    def groups(self) -> list[list[str]]:
        """The sets of layers that share their input and its scale."""
        unique = {id(group): group.layers for group in self._groups.values()}
        return list(unique.values())

    def _scale(self, observer: Observer) -> Affine:
        low, high = observer.range()
        if low == high == 0.0:
            logger.warning("The input of %s was zero throughout calibration; its scale is set to 1.", observer.name)
        return choose_affine(low, high, self.options.activation)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._observe(name, inputs[0])

        return observe

    def _observe(self, name: str, x: Tensor) -> None:
        reference, group = self._seen.get(id(x), (None, None))
        if reference is not None and group is not None and reference() is x and self._join(name, group):
            return
        group = self._groups.get(name) or self._new_group(name)
        group.observer.observe(x)
        self._seen[id(x)] = (weakref.ref(x), group)

    def _join(self, name: str, group: _Group) -> bool:
        """Put the layer into the group that has observed its input; False if it belongs to another one already."""
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


def calibrate(prepared: Prepared, batches: Iterable[Batch], progress: bool = False) -> dict[str, Affine]:
    """Run the batches through the float model and choose the affine map of every layer's input.

    batches: each a tensor, a sequence of arguments or a mapping of keyword arguments of the model. Padding counts as data,
    so group texts of like length. progress: show a bar on the terminal.
    Raises ValueError if there is no batch, a layer is never reached, or an input holds NaN or infinity.
    """
    training = prepared.model.training
    prepared.model.eval()
    try:
        with prepared.watching(), torch.inference_mode():
            for batch in _tracked(batches, progress):
                prepared.observe(batch)
    finally:
        prepared.model.train(training)
    if prepared.batches == 0:
        raise ValueError("Calibration needs at least one batch of data, but none came.")
    if prepared.batches == 1:
        logger.warning("Calibration saw one batch only; the ranges of %s may be too narrow.", prepared.layers[0])
    return prepared.scales()


def quantize(
    model: nn.Module, batches: Iterable[Batch], options: QuantizationOptions | None = None, progress: bool = False
) -> nn.Module:
    """A fake-quantized copy of the model: prepare, calibrate and convert in one call; raises as they do."""
    return convert(model, calibrate(prepare(model, options), batches, progress))


def run_batch(model: nn.Module, batch: Batch) -> Any:
    """The model's output for a batch given as a tensor, a sequence of arguments or a mapping of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch) if isinstance(batch, Tensor) else model(*batch)


def _tracked(batches: Iterable[Batch], progress: bool) -> Iterable[Batch]:
    if not progress:
        return batches
    from rich.progress import track

    return track(batches, description="Calibrating")
