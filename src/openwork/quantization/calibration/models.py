"""Models calibrated and quantized as a whole: torch modules, prepared ones, ONNX models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias, overload

import torch
from torch import nn

from openwork.quantization.calibration.calibration import Calibration
from openwork.quantization.calibration.model_cache import load, store
from openwork.quantization.corrections.bias_correction import check_data, correct_biases
from openwork.quantization.data.feeds import Feed
from openwork.quantization.data.sources import Source
from openwork.quantization.placement import Prepared, QuantizationOptions, prepare
from openwork.quantization.scales.cache import CacheEntry
from openwork.support.batches import Batch, Keep, evaluating, kept_rows
from openwork.support.progress import progress_bar

if TYPE_CHECKING:
    from onnx import ModelProto

    from openwork.quantization.float_onnx import QuantizedOnnx

OnnxModel: TypeAlias = "str | PathLike[str] | ModelProto"
CachePath: TypeAlias = str | PathLike[str] | None


@overload
def calibrate(
    model: Prepared | nn.Module,
    data: Source | None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
    options: QuantizationOptions | None = None,
) -> nn.Module: ...


@overload
def calibrate(
    model: OnnxModel,
    data: Source | None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
    options: QuantizationOptions | None = None,
) -> QuantizedOnnx: ...


def calibrate(
    model: Prepared | nn.Module | OnnxModel,
    data: Source | None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
    options: QuantizationOptions | None = None,
) -> nn.Module | QuantizedOnnx:
    """Run the batches through the prepared model in float, choose every scale, and return the model, which
    is fake-quantized from now on. A model that is not prepared, or an ONNX model, goes to `quantize`.

    data: batches, each a tensor, a sequence of arguments or a mapping of keyword arguments of the model, from
    an iterable, arrays or files (see `data/feeds.py`). With torch.distributed initialized every worker
    calibrates with its own and all get the scales of all data. None where the cache holds the scales.
    keep: gives the rows of a batch that count, such as [batch, length]; None takes the argument named
    `attention_mask`, where there is one, so that padding does not count.
    progress: show a bar on the standard error stream.
    cache: a file that keeps what was chosen; where it is there already and belongs to this model and these
    options, no data are run. options: for a model that is not prepared.
    Raises ValueError if there is no batch, a layer is never reached, or an input holds NaN or infinity; the
    model's quantizers are all off then. Raises StaleCache for the cache of another model or other options.
    """
    if not isinstance(model, Prepared):
        return quantize(model, data, options, keep, progress, cache)
    if options is not None:
        raise ValueError("A prepared model has its options already; give them to `prepare` instead.")
    if model.options.correct_bias:
        check_data(_given(data, "Correcting the biases"))
    entries = None if cache is None else load(model, cache)
    if entries is not None:
        Calibration(model).load(entries)
    else:
        entries = _observed(model, _given(data, "Calibration"), keep, progress)
        if cache is not None:
            store(model, entries, cache)
    if model.options.correct_bias:
        model.corrected = correct_biases(model.model, _given(data, "Correcting the biases"), keep, progress)
    return model.model


def _observed(prepared: Prepared, data: Source, keep: Keep | None, progress: bool) -> dict[str, CacheEntry]:
    model, calibration = prepared.model, Calibration(prepared)
    with evaluating(model), torch.no_grad():
        with calibration.watching(), _advancing(Feed(model, data), progress) as counted:
            for batch in counted:
                calibration.observe(batch, kept_rows(model, batch, keep))
        return calibration.finish()


def _given(data: Source | None, what: str) -> Source:
    if data is None:
        raise ValueError(f"{what} needs data; give batches of the model's inputs.")
    return data


@overload
def quantize(
    model: nn.Module,
    data: Source | None,
    options: QuantizationOptions | None = None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
) -> nn.Module: ...


@overload
def quantize(
    model: OnnxModel,
    data: Source | None,
    options: QuantizationOptions | None = None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
) -> QuantizedOnnx: ...


def quantize(
    model: nn.Module | OnnxModel,
    data: Source | None,
    options: QuantizationOptions | None = None,
    keep: Keep | None = None,
    progress: bool = False,
    cache: CachePath = None,
) -> nn.Module | QuantizedOnnx:
    """A fake-quantized copy of the model: prepare on the first batch and calibrate; raises as they do.

    model: of torch, or the path of a float ONNX model or that model itself, which `quantize_onnx` makes a
    Q/DQ model of; keep is for torch models only.
    """
    if not isinstance(model, nn.Module):
        return _quantized_onnx(model, data, options, keep, progress, cache)
    data = _given(data, "Preparing a model, on its first batch,")
    iterator = iter(Feed(model, data))
    first = next(iterator, None)
    if first is None:
        raise ValueError("Calibration needs at least one batch of data, but none came.")
    batches = itertools.chain([first], iterator) if isinstance(data, Iterator) else data
    return calibrate(prepare(model, first, options), batches, keep, progress, cache)


def _quantized_onnx(
    model: OnnxModel,
    data: Source | None,
    options: QuantizationOptions | None,
    keep: Keep | None,
    progress: bool,
    cache: CachePath,
) -> QuantizedOnnx:
    # ONNX Runtime and its neighbours are needed for ONNX models only.
    from openwork.quantization.float_onnx import OnnxCalibration, quantize_onnx

    if keep is not None:
        raise ValueError(
            "An ONNX model takes no `keep`; its input named attention_mask says which rows count."
        )
    if not (isinstance(model, str | PathLike) or hasattr(model, "SerializeToString")):
        raise TypeError(
            "A torch module, a prepared one, or an ONNX model or its path is quantized, but "
            f"{type(model).__name__} came."
        )
    return quantize_onnx(model, data, options, OnnxCalibration(cache=cache, progress=progress))


@contextmanager
def _advancing(batches: Feed, shown: bool) -> Iterator[Iterator[Batch]]:
    with progress_bar("Calibrating", batches.total, shown) as advance:

        def counted() -> Iterator[Batch]:
            for done, batch in enumerate(batches, 1):
                yield batch
                advance(done)

        yield counted()
