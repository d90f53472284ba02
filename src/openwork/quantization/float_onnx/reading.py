"""A float ONNX model read for quantization: in an opset with quantizers per channel, its names unique."""

from __future__ import annotations

from os import PathLike

import onnx
import onnx_ir as ir

from openwork.graph.model import ModelError, is_onnx
from openwork.graph.model_files import load_small
from openwork.graph.reader import read, settle
from openwork.graph.versions import modern, opset_of

OPSET, IR_VERSION = 18, 8
"""Models of older opsets are converted to the first; with the second came opset 18."""


def float_model(source: str | PathLike[str] | onnx.ModelProto) -> ir.Model:
    """The model of a path or a message, in opset 18 or newer; external data stay where they are.

    Raises ModelError for what is no model, is quantized already, or cannot be converted.
    """
    model = read(source, modernize=False)
    load_small(model)
    if any(is_onnx(node, "QuantizeLinear", "DequantizeLinear") for node in model.graph):
        raise ModelError(
            "The model has QuantizeLinear or DequantizeLinear nodes already; give the float model, or build "
            "the engine from this one as it is."
        )
    if opset_of(model) < OPSET:
        model = _converted(model)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    return model


def _converted(model: ir.Model) -> ir.Model:
    try:
        converted = modern(model, OPSET)
    except ModelError as error:
        raise ModelError(f"{error}; export it again with that one.") from error
    settle(converted)
    return converted
