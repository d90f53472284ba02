"""Measuring the error of every quantized layer: a float pass, each layer rounded beside it, a quantized pass.

In the float pass a hook runs each layer a second time with its quantizers on, on the same input, and compares
the two outputs at once; nothing is kept. For the accumulated errors a fixed sample of at most `SAMPLE`
elements of each output waits for the quantized pass, so memory is bounded by the number of layers, whatever
the data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from openwork.quantization.errors.report import Error, ErrorReport, LayerError
from openwork.quantization.fake_quantization.calls import repeated
from openwork.quantization.fake_quantization.quantized_layers import (
    QuantizedLayer,
    all_quantizers,
    in_float,
    quantized_layers,
    rounding,
)
from openwork.support.batches import Batch, Keep, evaluating, kept_rows, run_batch
from openwork.support.progress import progress_bar

logger = logging.getLogger(__name__)

SAMPLE = 1 << 16
"""Elements of one output that are kept from the float pass to the quantized one."""

OUTPUT = "(output)"


def measure_errors(
    model: nn.Module,
    batches: Iterable[Batch],
    accumulated: bool = True,
    keep: Keep | None = None,
    progress: bool = False,
) -> ErrorReport:
    """The error of every quantized layer of a calibrated model on `batches`; the model is left as it was.

    batches, keep: as for `calibrate`; a layer's rows that do not count are left out. accumulated: measure the
    errors of the whole quantized model too, by a third pass.
    Raises ValueError if there is no batch, nothing is quantized, or the float model gives NaN or infinity,
    naming the layer. Layers that no batch reached are named in a warning and in the report.
    """
    layers = quantized_layers(model)
    measuring = _Measuring(model, layers, keep)
    total = len(batches) if isinstance(batches, Sized) else 0
    with (
        evaluating(model),
        torch.inference_mode(),
        progress_bar("Measuring errors", total, progress) as advance,
    ):
        for done, batch in enumerate(batches, 1):
            measuring.measure(batch, accumulated)
            advance(done)
    return measuring.report(accumulated)


class _Measuring:
    def __init__(self, model: nn.Module, layers: Sequence[QuantizedLayer], keep: Keep | None) -> None:
        self.model, self.layers, self.keep = model, layers, keep
        self.quantizers = all_quantizers(layers)
        self.alone: dict[str, Error] = {}
        self.accumulated: dict[str, Error] = {}
        self.batches = 0
        self._kept: Tensor | None = None
        self._samples: dict[str, list[Tensor]] = {}
        self._inside = False

    def measure(self, batch: Batch, accumulated: bool) -> None:
        """Take in one batch."""
        self._kept = kept_rows(self.model, batch, self.keep)
        self._samples.clear()
        with in_float(self.quantizers), self._hooked(self._compare_alone):
            self._sample(OUTPUT, run_batch(self.model, batch))
        if accumulated:
            with self._hooked(self._compare_accumulated):
                self._compare(OUTPUT, run_batch(self.model, batch))
        self.batches += 1

    def report(self, accumulated: bool) -> ErrorReport:
        """What was measured; raises ValueError if there was no batch."""
        if not self.batches:
            raise ValueError("Measuring errors needs at least one batch of data, but none came.")
        unreached = tuple(layer.name for layer in self.layers if layer.name not in self.alone)
        if unreached:
            logger.warning("No batch reached %s, so its error is not known.", ", ".join(unreached))
        rows = tuple(
            LayerError(layer.name, layer.kind, self.alone[layer.name], self.accumulated.get(layer.name))
            for layer in self.layers
            if layer.name in self.alone
        )
        return ErrorReport(
            rows, self.accumulated.get(OUTPUT) if accumulated else None, self.batches, unreached
        )

    @contextmanager
    def _hooked(self, hook: Callable[[QuantizedLayer, Any, Any, Any], None]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self.layers:
                handle = layer.module.register_forward_hook(
                    lambda module, args, kwargs, output, layer=layer: hook(layer, args, kwargs, output),
                    with_kwargs=True,
                )
                stack.callback(handle.remove)
            yield

    def _compare_alone(self, layer: QuantizedLayer, args: Any, kwargs: Any, output: Any) -> None:
        if self._inside:
            return
        self._inside = True
        try:
            with rounding(layer.quantizers), repeated(layer.module):
                rounded = layer.module.forward(*args, **kwargs)
        finally:
            self._inside = False
        exact = self._rows(output)
        _check_finite(layer.name, exact)
        self.alone[layer.name] = self.alone.get(layer.name, Error()).with_more(exact, self._rows(rounded))
        self._sample(layer.name, output)

    def _compare_accumulated(self, layer: QuantizedLayer, args: Any, kwargs: Any, output: Any) -> None:
        self._compare(layer.name, output)

    def _compare(self, name: str, output: Any) -> None:
        rounded = self._rows(output)
        exact = self._samples[name].pop(0)
        error = self.accumulated.get(name, Error())
        self.accumulated[name] = error.with_more(exact, _thinned(rounded))

    def _sample(self, name: str, output: Any) -> None:
        self._samples.setdefault(name, []).append(_thinned(self._rows(output)).clone())

    def _rows(self, output: Any) -> Tensor:
        """The first tensor of an output, without the rows that do not count."""
        x = first_tensor(output)
        keep = self._kept
        return (
            x[keep] if keep is not None and keep.shape == x.shape[: keep.ndim] and keep.ndim < x.ndim else x
        )


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first tensor of a tuple, a list or a mapping.

    Raises ValueError where there is none.
    """
    while not isinstance(output, Tensor):
        items = list(output.values()) if isinstance(output, dict) else output
        if not isinstance(items, (tuple, list)) or not items:
            raise ValueError(f"A layer's output must hold a tensor, but it is {type(output).__name__}.")
        output = items[0]
    return output


def _thinned(x: Tensor) -> Tensor:
    """At most `SAMPLE` elements, at places that depend on their number alone."""
    flat = x.reshape(-1)
    if len(flat) <= SAMPLE:
        return flat
    places = torch.randint(len(flat), (SAMPLE,), generator=torch.Generator().manual_seed(0))
    return flat[places.to(flat.device)]


def _check_finite(name: str, exact: Tensor) -> None:
    if not bool(torch.isfinite(exact).all()):
        bad = int((~torch.isfinite(exact)).sum())
        raise ValueError(
            f"The float output of {name} holds {bad} values that are NaN or infinite, of {exact.numel()}; no "
            "error can be measured against it. Look for what made them: the data, or an earlier layer."
        )
