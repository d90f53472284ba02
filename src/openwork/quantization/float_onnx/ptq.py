"""Quantization after training of a float ONNX model: float model and data in, Q/DQ model out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from openwork.graph.model import dims
from openwork.graph.model_files import check, parts, write_model
from openwork.graph.quantizers.biases import quantize_biases
from openwork.graph.quantizers.dialect import conform
from openwork.graph.quantizers.tables import Tables, check_tables, quantize_tables
from openwork.qdq.targets import Target, parse_target
from openwork.quantization.corrections.equalization import Equalized
from openwork.quantization.data.sources import BATCH, Batches, Source
from openwork.quantization.float_onnx.batch_norm import fold
from openwork.quantization.float_onnx.equalization import equalize
from openwork.quantization.float_onnx.observation import observe
from openwork.quantization.float_onnx.placement import Placement, place
from openwork.quantization.float_onnx.qdq_nodes import rewrite
from openwork.quantization.float_onnx.reading import float_model
from openwork.quantization.placement import LayerChoice, QuantizationOptions, table
from openwork.quantization.scales.cache import CacheEntry, CalibrationCache, digest, read_cache


@dataclass(frozen=True)
class OnnxCalibration:
    """How to calibrate beside what to quantize.

    target: "tensorrt" or "onnxruntime" writes that dialect; None writes what the options' style says.
    batch: samples in a batch where the data are one array. cache: a file that keeps what calibration chose;
    where it is there already and belongs to this model and these options, no data are run. progress: show a
    bar on the standard error stream. tables: "int8" stores those of embeddings so, each row with a scale of
    its own, for which no data are needed.
    """

    target: Target | str | None = None
    batch: int = BATCH
    cache: str | PathLike[str] | None = None
    progress: bool = False
    tables: Tables = "float"

    def __post_init__(self) -> None:
        check_tables(self.tables)

    @property
    def dialect(self) -> Target | None:
        """The target; raises ValueError for an unknown one."""
        return parse_target(self.target) if isinstance(self.target, str) else self.target


@dataclass(frozen=True, eq=False)
class QuantizedOnnx:
    """A Q/DQ model. graph: the model. choices: what is quantized, and why the rest is not. entries: scales by
    tensor name.

    folded: the normalizations that were folded into convolutions. cached: whether the scales came from the
    cache. equalized: what became of every two layers in a row, where the options ask for equalization.
    """

    graph: ir.Model
    choices: tuple[LayerChoice, ...]
    entries: Mapping[str, CacheEntry]
    folded: tuple[str, ...] = ()
    cached: bool = False
    equalized: tuple[Equalized, ...] = ()

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model as a message, with a copy of every tensor."""
        return ir.to_proto(self.graph)

    def table(self) -> str:
        """The choices as lines of text."""
        return table(self.choices)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the model, whole or not at all; where it is too large for one file, with external data."""
        return write_model(self.graph, path)


def quantize_onnx(
    source: str | PathLike[str] | onnx.ModelProto,
    data: Source | None,
    options: QuantizationOptions | None = None,
    how: OnnxCalibration | None = None,
) -> QuantizedOnnx:
    """Calibrate a float ONNX model on data and give it Q/DQ, weights stored as INT8.

    source: a path or a parsed model; below opset 18 it is converted to that. data: see `Batches`; None where
    the cache holds the
    scales. options: style, observer, globs; without them the style of the target. Convolutions swallow the
    normalizations that follow them. Zeros of the weights stay zeros, and their patterns are recorded in the
    metadata. Raises ModelError for a file that is no valid model or cannot be converted,
    ValueError for data that are missing or do not fit, NaN, an empty choice, or a cache of another model
    (StaleCache).
    """
    how = how or OnnxCalibration()
    target = how.dialect
    options = options or _style_of(target)
    model = float_model(source)
    graph_digest = digest(parts(model))
    _check(options)
    folded = fold(model)
    equalized = equalize(model.graph) if options.equalize == "weights" else ()
    placement = place(model.graph, options)
    entries, cached = _entries(model, placement, data, options, how, graph_digest)
    rewrite(model, placement, entries)
    if target is not None:
        conform(model, target)
        if target.bias == "int32":
            quantize_biases(model)
    stored = quantize_tables(model) if how.tables == "int8" else []
    RemoveUnusedNodesPass()(model)
    check(model)
    rows = (LayerChoice(name, "table", True, "each row with a scale of its own") for name in stored)
    return QuantizedOnnx(model, (*placement.choices, *rows), entries, tuple(folded), cached, equalized)


def _check(options: QuantizationOptions) -> None:
    """Raise ValueError for options that are for torch models only."""
    if options.equalize == "activations":
        raise ValueError(
            "An ONNX model is equalized by its weights, so that a calibration cache fits it again; use "
            'equalize="weights".'
        )
    if options.correct_bias:
        raise ValueError(
            "Biases are corrected in torch models only; quantize the model there, and export it."
        )


def _style_of(target: Target | None) -> QuantizationOptions:
    return QuantizationOptions(style="openwork" if target is None else target.name)


def _entries(
    model: ir.Model,
    placement: Placement,
    data: Source | None,
    options: QuantizationOptions,
    how: OnnxCalibration,
    graph_digest: str,
) -> tuple[Mapping[str, CacheEntry], bool]:
    settings = options.settings
    names = [site.name for site in placement.sites]
    if how.cache is not None and Path(how.cache).exists():
        cache = read_cache(how.cache)
        cache.check(graph_digest, settings, names, str(how.cache))
        return {name: cache.tensors[name] for name in names}, True
    if data is None:
        where = "" if how.cache is None else f", and there is no calibration cache {how.cache}"
        raise ValueError(f"Calibration needs data{where}; give batches of the model's inputs.")
    inputs = [value.name or "" for value in model.graph.inputs]
    fixed = _fixed_batch(model.graph)
    batches = Batches(data, inputs, fixed or how.batch, whole=fixed is not None)
    entries = observe(model, placement.sites, batches, how.progress)
    if how.cache is not None:
        CalibrationCache(graph_digest, settings, entries).write(how.cache)
    return entries, False


def _fixed_batch(graph: ir.Graph) -> int | None:
    """The one size of the first dimension of all inputs, where the model leaves it no choice."""
    firsts = {shape[0] if (shape := dims(value)) else None for value in graph.inputs}
    first = firsts.pop() if len(firsts) == 1 else None
    return first if isinstance(first, int) else None
