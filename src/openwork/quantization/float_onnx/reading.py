"""A float ONNX model read for quantization: in an opset with quantizers per channel, its names unique."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import RemoveInitializersFromInputsPass

from openwork.graph.edit import own_model
from openwork.graph.model import ONNX_DOMAINS, ModelError, is_onnx
from openwork.graph.model_files import large_tensors, load_small, put_back, without
from openwork.graph.reader import MIN_OPSET, read

OPSET, IR_VERSION = 18, 8
"""Models of older opsets are converted to the first; with the second came opset 18. From IR version 4 on an
initializer need not be an input.
"""

OLDEST_OPSET = 7
"""The first that onnx converts from."""


def float_model(source: str | PathLike[str] | onnx.ModelProto) -> ir.Model:
    """The model of a path or a message, in opset 18 or newer; external data stay where they are.

    Raises ModelError for what is no model, is quantized already, or cannot be converted.
    """
    proto = source if isinstance(source, onnx.ModelProto) else Path(source)
    old = _older(proto)
    model = read(proto) if old is None else old
    load_small(model)
    model.ir_version = max(model.ir_version or 0, IR_VERSION)
    if any(is_onnx(node, "QuantizeLinear", "DequantizeLinear") for node in model.graph):
        raise ModelError(
            "The model has QuantizeLinear or DequantizeLinear nodes already; give the float model, or build "
            "the engine from this one as it is."
        )
    opset = model.opset_imports.get("", 0)
    if opset < OPSET:
        model = _converted(model, opset)
    _name_nodes(model.graph)
    return model


def _older(source: Path | onnx.ModelProto) -> ir.Model | None:
    """The model where its opset is older than those that are read; None lets `read` say what there is."""
    try:
        proto = source if isinstance(source, onnx.ModelProto) else _header(source)
        opset = next((entry.version for entry in proto.opset_import if entry.domain in ONNX_DOMAINS), 0)
        if not OLDEST_OPSET <= opset < MIN_OPSET:
            return None
        model = own_model(proto) if isinstance(source, onnx.ModelProto) else ir.load(source, "protobuf")
    except (DecodeError, OSError, ValueError, KeyError):
        return None
    RemoveInitializersFromInputsPass()(model)
    return model


def _header(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path), "protobuf", load_external_data=False)


def _converted(model: ir.Model, opset: int) -> ir.Model:
    """The model in opset 18, by onnx's converter, which never sees the large tensors."""
    tensors = large_tensors(model)
    try:
        shell = ir.to_proto(without(model, tensors))
        converted = read(onnx.version_converter.convert_version(shell, OPSET))
    # The converter's C++ side raises classes of its own, without a common base of theirs.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"The model uses opset {opset} and cannot be converted to opset {OPSET} ({reason[0]}); export it "
            "again with that one."
        ) from error
    put_back(converted, tensors)
    converted.ir_version = max(converted.ir_version or 0, IR_VERSION)
    converted.metadata_props.update(model.metadata_props)
    return converted


def _name_nodes(graph: ir.Graph) -> None:
    """Give every node a name of its own, so that tables, globs, messages and ONNX Runtime can speak of it."""
    taken = {node.name for node in graph}
    seen: set[str | None] = set()
    for node in graph:
        name, number = node.name or node.op_type, 1
        if node.name and name not in seen:
            seen.add(name)
            continue
        while f"{name}_{number}" in taken:
            number += 1
        node.name = f"{name}_{number}"
        taken.add(node.name)
        seen.add(node.name)
