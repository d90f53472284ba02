"""BatchNormalization folded into the convolution before it, and constants into initializers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.optimizer import fold_constants

from openwork.graph.edit import bypass, set_tensor
from openwork.graph.model import attributes, constant, is_onnx, lone_producer, needed, operand
from openwork.graph.norms import batch_norm
from openwork.qdq.batch_norm import along_outputs
from openwork.quantization.float_onnx.layers import CONVOLUTIONS

_LARGEST = 1 << 31


def fold(model: ir.Model) -> list[str]:
    """Fold what can be computed now, in place; the names of the folded normalizations.

    A normalization whose input has other readers, or whose numbers are computed, stays.
    """
    fold_constants(model, input_size_limit=_LARGEST, output_size_limit=_LARGEST)
    return [
        node.name or "" for node in list(model.graph) if is_onnx(node, "BatchNormalization") and _fold(node)
    ]


def _fold(node: ir.Node) -> bool:
    layer, norm = lone_producer(needed(node, 0), *CONVOLUTIONS), batch_norm(node)
    weight = constant(operand(layer, 1)) if layer is not None else None
    if layer is None or norm is None or weight is None or weight.dtype != np.float32:
        return False
    bias = constant(operand(layer, 2))
    if bias is None and operand(layer, 2) is not None:
        return False
    transposed, groups = layer.op_type == "ConvTranspose", int(attributes(layer).get("group", 1))
    scaled = weight * along_outputs(norm.factor, weight.shape, transposed, groups)
    set_tensor(layer, 1, scaled.astype(np.float32), folded_name(layer, "weight"))
    set_tensor(layer, 2, norm.folded_bias(bias).astype(np.float32), folded_name(layer, "bias"))
    # Tables, globs and caches know the tensor by the name of what the normalization gave.
    bypass(node, layer.outputs[0], keep_name=True)
    return True


def folded_name(layer: ir.Node, what: str) -> str:
    """The name of a tensor of the layer that replaces one which others read too."""
    return f"{layer.name or layer.op_type}.{what}.folded"
