"""A torch module to standard ONNX, its quantizers as Q/DQ around integer weights.

The graph holds MatMul and Add for every linear layer, with the weight as initializer [K, N] under the
parameter's own name: float, or s8 with a DequantizeLinear over its output channels; convolutions keep their
weights' layout. Equal quantizers of one tensor stand in the graph once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from openwork.export.biases import quantize_biases
from openwork.export.dialect import conform
from openwork.export.folding import drop_repeated_quantizers, fold_batch_norms
from openwork.export.layers import exportable
from openwork.export.options import ExportOptions, check_inputs
from openwork.export.patterns import pruned_weights, record_patterns
from openwork.export.targets import TARGETS
from openwork.export.tracing import trace
from openwork.files import write_atomic


def export(
    model: nn.Module, inputs: Mapping[str, Tensor], path: str | Path, options: ExportOptions | None = None
) -> Path:
    """Write the model, float or quantized, to `path` as ONNX; the file appears whole or not at all.

    inputs: example arguments by the names that `forward` gives them, every free dimension at least 2. The
    patterns of pruned layers are checked on the exported weights and stand in the file's metadata as
    `openwork.pattern.<weight>`. `next_steps` has the commands to go on with. Raises ValueError if a weight
    breaks its pattern or its mask, naming layer, row and group; for a pattern of a layer that is not
    exported; for a model that the target does not take; and for a quantizer without a scale.
    """
    options = options or ExportOptions()
    check_inputs(inputs, options)
    exported = exportable(model, options.exporter)
    graph = trace(exported, inputs, options)
    _rewrite(graph, options)
    proto = ir.to_proto(graph)
    record_patterns(proto, pruned_weights(model, exported, options.patterns), options.patterns)
    onnx.checker.check_model(proto)
    write_atomic(path, [proto.SerializeToString()])
    return Path(path)


def _rewrite(graph: ir.Model, options: ExportOptions) -> None:
    drop_repeated_quantizers(graph)
    fold_batch_norms(graph)
    if options.target is not None:
        conform(graph, TARGETS[options.target])
    if options.stored_bias == "int32":
        quantize_biases(graph)
    RemoveUnusedNodesPass()(graph)
