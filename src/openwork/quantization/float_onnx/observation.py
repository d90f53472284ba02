"""Running a float ONNX model over calibration data while the tensors to quantize are observed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from openwork.graph.model import Dims, dims
from openwork.graph.model_files import large_floats, pointing_to
from openwork.quantization.data.sources import Batches
from openwork.quantization.float_onnx.layers import follows_fold, torch_tensor
from openwork.quantization.float_onnx.placement import Site
from openwork.quantization.observers.observer import Observer, make_observer
from openwork.quantization.scales.cache import CacheEntry
from openwork.quantization.scales.scale_choice import choose_input, entry
from openwork.support.progress import progress_bar

logger = logging.getLogger(__name__)

Array = NDArray[Any]
ATTENTION_MASK = "attention_mask"


def observe(
    model: ir.Model, sites: Sequence[Site], batches: Batches, progress: bool
) -> dict[str, CacheEntry]:
    """Run every batch and choose scale and zero point of every site, by the name of its tensor.

    One batch's tensors are in memory at a time. Where the model has an input `attention_mask` [batch,
    length], padding is not counted. Raises ValueError if there is no batch, a batch does not fit the model,
    or a tensor holds NaN or infinity, naming it.
    """
    observers = {site.name: _observer(site) for site in sites}
    # ONNX Runtime reads these where they lie, as long as the session lives.
    tensors = {name: np.asarray(t.numpy(), order="C") for name, t in large_floats(model).items()}
    session = _session(model, list(observers), tensors)
    shapes = {value.name or "": dims(value) for value in model.graph.inputs}
    seen = 0
    with progress_bar("Calibrating", batches.total, progress) as advance:
        for seen, feed in enumerate(batches, 1):
            _check_shapes(feed, shapes, seen - 1)
            for name, value in _run(session, feed, seen - 1, list(observers)).items():
                observers[name].observe(_counted(torch_tensor(value), feed.get(ATTENTION_MASK)))
            advance(seen)
    if not seen:
        raise ValueError("Calibration needs at least one batch of data, but none came.")
    for observer in observers.values():
        for concern in observer.concerns():
            logger.warning("%s", concern)
    return {site.name: choose(site, observers[site.name]) for site in sites}


def choose(site: Site, observer: Observer) -> CacheEntry:
    """What an observer's range, or a search over its rows, makes of a site."""
    free = site.options.migrate and follows_fold(site.value) and not site.output
    return entry(observer, choose_input(observer, site.activation, lambda: _weights(site), free))


def _weights(site: Site) -> Tensor:
    return torch.cat([torch_tensor(layer.matrix()) for layer in site.layers])


def _observer(site: Site) -> Observer:
    return make_observer(site.observer, site.name, site.options.percentile, site.activation == "s8")


def _session(
    model: ir.Model, watched: Sequence[str], tensors: dict[str, Array]
) -> onnxruntime.InferenceSession:
    copied = pointing_to(model, "given", large_floats(model))
    values = {value.name: value for node in copied.graph for value in node.outputs}
    present = {value.name for value in copied.graph.outputs}
    inputs = {value.name for value in copied.graph.inputs}
    for name in watched:
        if name not in present and name not in inputs:
            value = values[name]
            value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
            copied.graph.outputs.append(value)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # ONNX Runtime takes the large tensors from where they are, in memory or in a mapped file: a message with
    # all of them would be one copy more, and could not be larger than 2 GiB.
    values_of = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
    options.add_external_initializers(list(tensors), values_of)
    return onnxruntime.InferenceSession(
        ir.to_proto(copied).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(
    session: onnxruntime.InferenceSession, feed: dict[str, Array], number: int, watched: Sequence[str]
) -> dict[str, Array]:
    computed = [output.name for output in session.get_outputs() if output.name in set(watched)]
    fed = {put.name: _typed(feed[put.name], put, number) for put in session.get_inputs()}
    # Where inputs alone are watched, the model runs all the same: it alone knows whether a batch fits
    # dimensions that its inputs leave free.
    asked = computed or [output.name for output in session.get_outputs()]
    try:
        results = session.run(asked, fed)
    except Exception as error:  # onnxruntime raises classes of its own, without a common base of theirs
        raise ValueError(f"Calibration batch {number} cannot be run: {error}") from error
    found = dict(zip(asked, results, strict=True))
    return {name: fed[name] if name in fed else found[name] for name in watched}


def _check_shapes(feed: Mapping[str, Array], shapes: Mapping[str, Dims | None], number: int) -> None:
    """Raise ValueError for an input of another rank than the model's, or another size where that is fixed."""
    for name, wanted in shapes.items():
        if wanted is None or name not in feed:
            continue
        found = feed[name].shape
        fits = len(found) == len(wanted) and all(
            size == dim for size, dim in zip(found, wanted, strict=True) if isinstance(dim, int)
        )
        if not fits:
            shown = ", ".join("?" if dim is None else str(dim) for dim in wanted)
            raise ValueError(
                f"Calibration batch {number}: the input {name!r} takes the shape [{shown}], but the data "
                f"have {list(found)}; give samples as the model takes them."
            )


_TYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def _typed(array: Array, put: Any, number: int) -> Array:
    """The array in the input's type, where that loses nothing that a number of its kind holds."""
    wanted = _TYPES.get(put.type)
    if wanted is None or array.dtype == wanted:
        return array
    both_floats = np.issubdtype(array.dtype, np.floating) and wanted is np.float32
    both_integers = np.issubdtype(array.dtype, np.integer) and wanted in (np.int64, np.int32)
    if not (both_floats or both_integers):
        raise ValueError(
            f"Calibration batch {number}: the input {put.name!r} takes {put.type}, but the data are "
            f"{array.dtype}."
        )
    return array.astype(wanted)


def _counted(x: Tensor, mask: Array | None) -> Tensor:
    """The part of a tensor that counts: [batch, length, ...] without padding."""
    if mask is None or x.shape[:-1] != mask.shape:
        return x
    return x[torch_tensor(mask).bool()]
