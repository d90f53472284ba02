"""Empirical bias correction: what rounding adds to each output channel on average, taken out of the bias.

    b += E[y_float - y_quantized],    y what the layer gives, over calibration data, for each output channel

Layer by layer in order of execution, so that each is corrected for what the corrected layers before it still
pass on. Only sums per channel are kept. The error of the model's outputs is measured before and after, and
where it has grown everything is put back: a mean can be right and the rest worse. Source: Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and appendix D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from openwork.quantization.corrections.batch_norm import shared_parameters
from openwork.quantization.corrections.channel_axis import channel_axis
from openwork.quantization.data.feeds import Feed
from openwork.quantization.data.sources import Source
from openwork.quantization.fake_quantization.modules import Quantized
from openwork.quantization.fake_quantization.switches import in_float
from openwork.quantization.trace.arguments import tensors_in
from openwork.support.batches import Batch, Keep, evaluating, kept_rows, run_batch
from openwork.support.progress import progress_bar


@dataclass(frozen=True)
class Corrected:
    """One layer's correction. shift: the largest |mean error| of its channels, before. reason: why there is
    none, else how it was done.
    """

    name: str
    done: bool
    shift: float
    reason: str


@dataclass(frozen=True)
class BiasCorrection:
    """What a correction came to. before, after: ||quantized - float||^2 of the model's outputs over the data
    divided by ||float||^2. kept: whether the new biases stayed.
    """

    layers: tuple[Corrected, ...]
    before: float
    after: float
    kept: bool


class _Enough(Exception):
    """The layer that was waited for has run; not an error."""


@dataclass
class _Mean:
    """A running mean over rows, f64 [C]; adds: how often rows came."""

    total: Tensor | float = 0.0
    rows: int = 0
    adds: int = 0

    def add(self, rows: Tensor) -> None:
        self.total = self.total + rows.double().sum(0)
        self.rows += len(rows)
        self.adds += 1

    def value(self, channels: int, device: torch.device) -> Tensor:
        """Over the rows of all workers."""
        total = torch.zeros(channels, dtype=torch.float64, device=device) + self.total
        sums = torch.cat([total, total.new_tensor([float(self.rows)])])
        if _workers() > 1:
            dist.all_reduce(sums)
        return sums[:-1] / sums[-1].clamp(min=1)


def correct_biases(
    model: nn.Module, data: Source, keep: Keep | None = None, progress: bool = False
) -> BiasCorrection:
    """Correct the biases of all quantized layers of a calibrated model, in place.

    A layer without a bias gets one. data: batches as for `calibrate`, run once for each layer and three times
    more, so not an iterator. keep: the rows that count. With torch.distributed initialized each worker gives
    its own data, and all make the same correction. Raises ValueError if there is no data, if it can be run
    through only once, or if the model has no quantized layer that runs.
    """
    check_data(data)
    run = _Run(model, data, keep)
    with evaluating(model), torch.no_grad():
        order, wanted = run.float_means()
        kept = {name: _bias(model, name) for name in order}
        before = run.output_error(kept)
        rows = list(_refused(model, order))
        refused = {row.name for row in rows}
        names = [name for name in order if name not in refused]
        with progress_bar("Correcting biases", len(names), progress) as advance:
            for done, name in enumerate(names, 1):
                rows.append(run.correct(name, wanted[name]))
                advance(done, name)
        after = run.output_error(kept)
        better = after <= before
        if not better:
            for name in names:
                _set_bias(model, name, kept[name])
    return BiasCorrection(tuple(rows if better else map(_put_back, rows)), before, after, better)


def check_data(data: Source) -> None:
    """Raise ValueError for data that can be run through only once."""
    if isinstance(data, Iterator):
        raise ValueError(
            "Correcting the biases runs through the data once for each layer, but an iterator was given, "
            "which gives them once; give a list, a DataLoader or a path."
        )


def _put_back(row: Corrected) -> Corrected:
    reason = "put back: the error of the model's outputs grew" if row.done else row.reason
    return Corrected(row.name, False, row.shift, reason)


class _Run:
    """Passes of the data through one model; every mean is over the rows that count."""

    def __init__(self, model: nn.Module, data: Source, keep: Keep | None) -> None:
        self.model, self.data, self.keep = model, Feed(model, data), keep
        self._kept: Tensor | None = None
        self._once: frozenset[str] = frozenset()

    def batches(self) -> Iterator[Batch]:
        for batch in self.data:
            self._kept = kept_rows(self.model, batch, self.keep)
            yield batch

    def float_means(self) -> tuple[list[str], dict[str, Tensor]]:
        """The quantized layers in the order in which they first run, and what each gives in float."""
        means: dict[str, _Mean] = {}
        layers = {name: m for name, m in self.model.named_modules() if isinstance(m, Quantized)}
        count = 0
        with in_float(self.model), self._watching(layers, means):
            for batch in self.batches():
                run_batch(self.model, batch)
                count += 1
        batches, order = _together(count, list(means))
        if not batches:
            raise ValueError("Correcting the biases needs at least one batch of data, but none came.")
        if not order:
            raise ValueError("The model has no quantized layer that runs, so there is no bias to correct.")
        self._once = frozenset(name for name, mean in means.items() if mean.adds == count)
        return order, {name: self._value(name, means.get(name, _Mean())) for name in order}

    def correct(self, name: str, wanted: Tensor) -> Corrected:
        """Correct one layer by a pass that ends behind it, where it runs once."""
        mean = {name: _Mean()}
        layer = self.model.get_submodule(name)
        ending = _ending_at(layer) if name in self._once else nullcontext()
        with self._watching({name: layer}, mean), ending:
            for batch in self.batches():
                try:
                    run_batch(self.model, batch)
                except _Enough:
                    continue
        shift = wanted - self._value(name, mean[name])
        bias = _bias(self.model, name)
        added = "" if bias is not None else ", in a bias that it did not have"
        _set_bias(self.model, name, shift if bias is None else bias.double() + shift)
        return Corrected(name, True, float(shift.abs().amax()), f"{len(shift)} channels corrected{added}")

    def output_error(self, biases: Mapping[str, Tensor | None]) -> float:
        """||quantized - float||^2 / ||float||^2 of the outputs; the float model has the given biases."""
        error, size = 0.0, 0.0
        for batch in self.batches():
            with in_float(self.model), _biases(self.model, biases):
                wanted = self._outputs(batch)
            for one, other in zip(self._outputs(batch), wanted, strict=True):
                error += float((one - other).square().sum())
                size += float(other.square().sum())
        sums = torch.tensor([error, size], dtype=torch.float64, device=self._device())
        if _workers() > 1:
            dist.all_reduce(sums)
        error, size = float(sums[0]), float(sums[1])
        return error / size if size else error

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _outputs(self, batch: Batch) -> list[Tensor]:
        found = tensors_in(run_batch(self.model, batch))
        return [self._counted(x).double() for x in found if x.is_floating_point()]

    def _counted(self, x: Tensor) -> Tensor:
        kept = self._kept
        return x if kept is None or kept.shape != x.shape[: kept.dim()] else x[kept]

    def _value(self, name: str, mean: _Mean) -> Tensor:
        layer = self.model.get_submodule(name)
        weight = layer.get_parameter("weight")
        return mean.value(_channels(layer), weight.device)

    @contextmanager
    def _watching(self, layers: Mapping[str, nn.Module], means: dict[str, _Mean]) -> Iterator[None]:
        handles = [layer.register_forward_hook(self._hook(name, means)) for name, layer in layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str, means: dict[str, _Mean]) -> Callable[..., None]:
        def observe(layer: nn.Module, _: Any, y: Tensor) -> None:
            y = self._counted(y).detach()
            axis = channel_axis(layer, y)
            means.setdefault(name, _Mean()).add(y.movedim(axis, -1).reshape(-1, y.shape[axis]))

        return observe


@contextmanager
def _ending_at(layer: nn.Module) -> Iterator[None]:
    """A forward pass ends as soon as the layer has run."""

    def end(*_: Any) -> None:
        raise _Enough

    handle = layer.register_forward_hook(end)
    try:
        yield
    finally:
        handle.remove()


def _refused(model: nn.Module, names: Iterable[str]) -> Iterator[Corrected]:
    for name in names:
        layer = model.get_submodule(name)
        if layer._parameters.get("bias") is not None and shared_parameters(model, layer):
            yield Corrected(name, False, 0.0, "shares its parameters with other layers")


def _channels(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _bias(model: nn.Module, name: str) -> Tensor | None:
    bias = model.get_submodule(name)._parameters.get("bias")
    return None if bias is None else bias.detach().clone()


@torch.no_grad()
def _set_bias(model: nn.Module, name: str, value: Tensor | None) -> None:
    layer = model.get_submodule(name)
    bias = layer._parameters.get("bias")
    if value is None:
        layer._parameters["bias"] = None
    elif bias is None:
        layer.register_parameter("bias", nn.Parameter(value.to(layer.get_parameter("weight"))))
    else:
        bias.copy_(value)


@contextmanager
def _biases(model: nn.Module, values: Mapping[str, Tensor | None]) -> Iterator[None]:
    """While open the layers have these biases."""
    now = {name: _bias(model, name) for name in values}
    for name, value in values.items():
        present = now[name]
        _set_bias(model, name, torch.zeros_like(present) if value is None and present is not None else value)
    try:
        yield
    finally:
        for name, value in now.items():
            _set_bias(model, name, value)


def _workers() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _together(count: int, names: list[str]) -> tuple[int, list[str]]:
    """The batches of all workers, and the layers that ran at any of them, in one order for all."""
    everywhere: list[tuple[int, list[str]]] = [(count, names)]
    if _workers() > 1:
        everywhere = [(0, [])] * _workers()
        dist.all_gather_object(everywhere, (count, names))
    order = dict.fromkeys(name for _, found in everywhere for name in found)
    return sum(batches for batches, _ in everywhere), list(order)
