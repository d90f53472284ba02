"""A torch module to standard ONNX, its quantizers as Q/DQ around integer weights.

The graph holds MatMul and Add for every linear layer, with the weight as initializer [K, N] under the
parameter's own name: float, or s8 with a DequantizeLinear over its output channels; convolutions keep their
weights' layout. Equal quantizers of one tensor stand in the graph once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from openwork.export.exact_rewrites import drop_repeated_quantizers, fold_batch_norms, transpose_weights
from openwork.export.inputs import example_inputs
from openwork.export.layers import exportable
from openwork.export.options import ExportOptions
from openwork.export.patterns import pruned_weights, record_patterns
from openwork.export.precision import in_binary32
from openwork.export.torch_graph import trace
from openwork.graph.model_files import check, write_model
from openwork.graph.quantizers.biases import quantize_biases
from openwork.graph.quantizers.dialect import conform
from openwork.graph.quantizers.tables import quantize_tables
from openwork.qdq.targets import TARGETS
from openwork.support.batches import Batch


def export(model: nn.Module, inputs: Batch, path: str | Path, options: ExportOptions | None = None) -> Path:
    """Write the model, float or quantized, to `path` as ONNX; the file appears whole or not at all, and
    `<path>.data` beside it where the tensors are too large for one.

    inputs: an example batch as `quantize` takes it (one tensor or array, a sequence of arguments, or a
    mapping by the names that `forward` gives them), every free dimension at least 2. The patterns of pruned
    layers are checked on the exported weights and stand in the file's metadata as
    `openwork.pattern.<weight>`. `next_steps` has the commands to go on with. Raises ValueError if a weight
    breaks its pattern or its mask, naming layer, row and group; for a pattern of a layer that is not
    exported; for a model that torch's exporter or the target does not take; for a quantizer without a scale;
    and for a batch whose inputs have no names, TypeError for what is no batch.
    """
    options = options or ExportOptions()
    model, examples = in_binary32(model, example_inputs(model, inputs, options))
    pruned = pruned_weights(model, options.patterns)
    made = exportable(model, examples, options.exporter)
    graph = trace(made.module, examples, options)
    transposed = _rewrite(graph, options) | made.transposed
    _rename(graph, made.names)
    stored = {made.names.get(name, name) for name in transposed}
    record_patterns(graph, pruned, options.patterns, stored)
    check(graph)
    return write_model(graph, path)


def _rewrite(graph: ir.Model, options: ExportOptions) -> frozenset[str]:
    """Bring the graph into its final form; the weights that were transposed for it."""
    transposed = transpose_weights(graph)
    drop_repeated_quantizers(graph)
    fold_batch_norms(graph)
    if options.target is not None:
        conform(graph, TARGETS[options.target])
    if options.stored_bias == "int32":
        quantize_biases(graph)
    if options.tables == "int8":
        quantize_tables(graph)
    RemoveUnusedNodesPass()(graph)
    return transposed


def _rename(graph: ir.Model, names: Mapping[str, str]) -> None:
    """Give tensors of the graph their names, where none has it yet."""
    for old, new in names.items():
        value = graph.graph.initializers.get(old)
        if value is not None and new not in graph.graph.initializers:
            value.name = new
