"""Quantization after training of a float ONNX model: float model and data in, Q/DQ model out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from openwork.graph.model import ModelError, dims, is_onnx
from openwork.graph.quantizers.biases import quantize_biases
from openwork.graph.quantizers.dialect import conform
from openwork.graph.reader import read
from openwork.qdq.targets import Target, parse_target
from openwork.quantization.corrections.equalization import Equalized
from openwork.quantization.data.sources import BATCH, Batches, Source
from openwork.quantization.float_onnx.batch_norm import fold
from openwork.quantization.float_onnx.equalization import equalize
from openwork.quantization.float_onnx.observation import observe
from openwork.quantization.float_onnx.placement import Placement, place
from openwork.quantization.float_onnx.qdq_nodes import rewrite
from openwork.quantization.placement import LayerChoice, QuantizationOptions, table
from openwork.quantization.scales.cache import CacheEntry, CalibrationCache, digest, read_cache
from openwork.support.files import write_atomic

OLDEST_OPSET, OPSET = 13, 18
"""Below the first, DequantizeLinear knows no channels; models below the second are converted to it."""


@dataclass(frozen=True)
class OnnxCalibration:
    """How to calibrate beside what to quantize.

    target: "tensorrt" or "onnxruntime" writes that dialect; None writes what the options' style says.
    batch: samples in a batch where the data are one array. cache: a file that keeps what calibration chose;
    where it is there already and belongs to this model and these options, no data are run. progress: show a
    bar on the standard error stream.
    """

    target: Target | str | None = None
    batch: int = BATCH
    cache: str | PathLike[str] | None = None
    progress: bool = False

    @property
    def dialect(self) -> Target | None:
        """The target; raises ValueError for an unknown one."""
        return parse_target(self.target) if isinstance(self.target, str) else self.target


@dataclass(frozen=True, eq=False)
class QuantizedOnnx:
    """A Q/DQ model. choices: what is quantized, and why the rest is not. entries: scales by tensor name.

    folded: the normalizations that were folded into convolutions. cached: whether the scales came from the
    cache. equalized: what became of every two layers in a row, where the options ask for equalization.
    """

    model: onnx.ModelProto
    choices: tuple[LayerChoice, ...]
    entries: Mapping[str, CacheEntry]
    folded: tuple[str, ...] = ()
    cached: bool = False
    equalized: tuple[Equalized, ...] = ()

    def table(self) -> str:
        """The choices as lines of text."""
        return table(self.choices)

    def write(self, path: str | PathLike[str]) -> Path:
        """Write the model, whole or not at all."""
        write_atomic(path, [self.model.SerializeToString()])
        return Path(path)


def quantize_onnx(
    source: str | PathLike[str] | onnx.ModelProto,
    data: Source | None,
    options: QuantizationOptions | None = None,
    how: OnnxCalibration | None = None,
) -> QuantizedOnnx:
    """Calibrate a float ONNX model on data and give it Q/DQ, weights stored as INT8.

    source: a path or a parsed model, opset 13 or newer. data: see `Batches`; None where the cache holds the
    scales. options: style, observer, globs; without them the style of the target. Convolutions swallow the
    normalizations that follow them. Zeros of the weights stay zeros, and their patterns are recorded in the
    metadata. Raises ModelError for a file that is no valid model or has an opset that is too old,
    ValueError for data that are missing or do not fit, NaN, an empty choice, or a cache of another model
    (StaleCache).
    """
    how = how or OnnxCalibration()
    target = how.dialect
    options = options or _style_of(target)
    model = _prepared(source)
    graph_digest = digest([ir.to_proto(model).SerializeToString(deterministic=True)])
    _check(options)
    folded = fold(model)
    equalized = equalize(model.graph) if options.equalize == "weights" else ()
    _name_nodes(model.graph)
    placement = place(model.graph, options)
    entries, cached = _entries(model, placement, data, options, how, graph_digest)
    rewrite(model, placement, entries)
    if target is not None:
        conform(model, target)
        if target.bias == "int32":
            quantize_biases(model)
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    return QuantizedOnnx(proto, placement.choices, entries, tuple(folded), cached, equalized)


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


def _prepared(source: str | PathLike[str] | onnx.ModelProto) -> ir.Model:
    model = read(source if isinstance(source, onnx.ModelProto) else Path(source))
    ir.external_data.load_to_model(model)
    if any(is_onnx(node, "QuantizeLinear", "DequantizeLinear") for node in model.graph):
        raise ModelError(
            "The model has QuantizeLinear or DequantizeLinear nodes already; give the float model, or build "
            "the engine from this one as it is."
        )
    opset = model.opset_imports.get("", 0)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"The model uses opset {opset}, but Q/DQ per channel needs opset {OLDEST_OPSET} or newer; export "
            f"it again, best with opset {OPSET}."
        )
    return model if opset >= OPSET else _converted(model, opset)


def _converted(model: ir.Model, opset: int) -> ir.Model:
    try:
        return read(onnx.version_converter.convert_version(ir.to_proto(model), OPSET))
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"The model uses opset {opset} and cannot be converted to opset {OPSET} ({error}); export it "
            "again with that one."
        ) from error


def _name_nodes(graph: ir.Graph) -> None:
    """Give nodes without a name one, so that tables, globs and messages can speak of them."""
    counts: dict[str, int] = {}
    for node in graph:
        if not node.name:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
            node.name = f"{node.op_type}_{counts[node.op_type]}"


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
