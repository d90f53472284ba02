"""Reading an ONNX model: file or message, checked, with constants as initializers and shapes inferred."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from openwork.engine.operators import DOMAIN, VERSION
from openwork.graph import shapes
from openwork.graph.edit import own_model
from openwork.graph.model import ONNX_DOMAINS, ModelError
from openwork.graph.stated_patterns import attach_patterns
from openwork.graph.verify import verify

INPUT_DTYPES = (
    ir.DataType.FLOAT,
    ir.DataType.INT64,
    ir.DataType.INT32,
    ir.DataType.UINT8,
    ir.DataType.INT8,
    ir.DataType.BOOL,
)
MIN_OPSET, MAX_OPSET = 11, 24


def read(source: str | Path | onnx.ModelProto) -> ir.Model:
    """An ONNX model as onnx-ir, checked, constants lifted to initializers, functions inlined,
    shapes inferred.

    source: the path of a .onnx file (external data beside it), or a model already parsed.
    Raises ModelError, naming the source, if it is not a whole and valid ONNX model with supported inputs.
    """
    where = "The model" if isinstance(source, onnx.ModelProto) else str(source)
    proto = source if isinstance(source, onnx.ModelProto) else _parse(Path(source))
    _check_header(proto, where)
    _check(source, proto, where)
    model = _convert(source, proto, where)
    _check_tensors(model, where)
    _check_inputs(model, where)
    _normalize(model)
    shapes.infer(model)
    verify(model)
    return model


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path} is not a file; give the path of an ONNX model.")
    try:
        # By its content: onnx would choose another format by the ending of the name.
        return onnx.load(str(path), "protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole ONNX model: it cannot be parsed ({error}). It may be truncated, altered, "
            "or another kind of file; export it again."
        ) from error


def _check_header(proto: onnx.ModelProto, where: str) -> None:
    if not proto.ir_version or not proto.graph.output:
        raise ModelError(
            f"{where} is not an ONNX model: it has no IR version or its graph has no outputs. It may be "
            "truncated or another kind of file."
        )
    versions = [entry.version for entry in proto.opset_import if entry.domain in ONNX_DOMAINS]
    if not versions:
        raise ModelError(
            f"{where} imports no version of the standard ONNX operators, so its nodes have no meaning."
        )
    if not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise ModelError(
            f"{where} uses opset {versions[0]}, but this reader knows opsets {MIN_OPSET} to {MAX_OPSET}; "
            "export the model again with another opset."
        )


def _check(source: str | Path | onnx.ModelProto, proto: onnx.ModelProto, where: str) -> None:
    try:
        onnx.checker.check_model(proto if isinstance(source, onnx.ModelProto) else str(source))
    # The checker raises ValidationError, and ValueError or RuntimeError from its C++ side.
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where} is not a valid ONNX model: {error}") from error


def _convert(source: str | Path | onnx.ModelProto, proto: onnx.ModelProto, where: str) -> ir.Model:
    try:
        return own_model(proto) if isinstance(source, onnx.ModelProto) else ir.load(source, "protobuf")
    except (ValueError, KeyError, OSError, ir.serde.SerdeError) as error:
        cause = error.__cause__ or error
        raise ModelError(f"{where} cannot be read as a graph: {cause}") from error


def _check_tensors(model: ir.Model, where: str) -> None:
    """Read every initializer once, so that missing data is found here, not in the middle of a build."""
    for name, value in model.graph.initializers.items():
        try:
            array = value.const_value.numpy() if value.const_value is not None else None
            if array is None or tuple(array.shape) != tuple(value.const_value.shape):  # type: ignore[union-attr]
                raise ValueError("its data does not fill its shape")
        except (ValueError, OSError, TypeError) as error:
            raise ModelError(f"{where}: the initializer {name!r} cannot be read: {error}") from error


def _check_inputs(model: ir.Model, where: str) -> None:
    initializers = set(model.graph.initializers)
    for value in model.graph.inputs:
        if value.name not in initializers and value.dtype not in INPUT_DTYPES:
            accepted = ", ".join(dtype.name for dtype in INPUT_DTYPES)
            found = "no element type" if value.dtype is None else value.dtype.name
            raise ModelError(
                f"{where}: the input {value.name!r} has {found}, but inputs must be one of {accepted}."
            )


def _normalize(model: ir.Model) -> None:
    InlinePass()(model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    attach_patterns(model)
    model.graph.opset_imports[DOMAIN] = VERSION
    for value in model.graph.inputs:
        if value.shape is not None:
            named = [
                d if isinstance(d, int) else d.value or f"{value.name}_{i}" for i, d in enumerate(value.shape)
            ]
            value.shape = ir.Shape(named)
    for index, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{index}"
