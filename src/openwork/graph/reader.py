"""Reading an ONNX model: file or message, checked, with constants as initializers and shapes inferred."""

from __future__ import annotations

from os import PathLike
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
from openwork.graph.inference import infer_types
from openwork.graph.model import ONNX_DOMAINS, ModelError
from openwork.graph.model_files import LARGEST_MESSAGE
from openwork.graph.ports import check_ports, copy_stored_outputs, name_dimensions, name_nodes
from openwork.graph.stated_patterns import attach_patterns
from openwork.graph.verify import verify
from openwork.graph.versions import NEWEST, OLDEST, RULES_FROM, modern, opset_of

VERBATIM = "verbatim"
"""Where a model keeps in its `meta` why no rule can read it, so that it runs as it is written."""


def read(
    source: str | PathLike[str] | onnx.ModelProto, *, modernize: bool = True, probe: bool = True
) -> ir.Model:
    """An ONNX model as onnx-ir, checked, constants lifted to initializers, functions inlined,
    shapes inferred.

    source: the path of a .onnx file (external data beside it), or a model already parsed. modernize: convert
    opsets that the rules do not read; where onnx cannot, `meta` says why under VERBATIM. probe: find shapes
    that onnx does not infer.
    Raises ModelError, naming the source, if it is not a whole and valid ONNX model with supported inputs.
    """
    where = "The model" if isinstance(source, onnx.ModelProto) else str(source)
    proto = source if isinstance(source, onnx.ModelProto) else _parse(Path(source))
    _check_header(proto, where)
    _check_dense(proto, where)
    if _lack_shapes(proto):
        proto = source = _with_shapes(_whole(source, proto), where)
    _check(source, proto, where)
    model = _convert(source, proto, where)
    model.graph.opset_imports.setdefault("", opset_of(model))
    if modernize:
        model = _modern(model)
    _check_tensors(model, where)
    check_ports(model, where)
    settle(model, probe)
    return model


def settle(model: ir.Model, probe: bool = True) -> None:
    """What reading does to a model once it is whole: constants lifted, functions inlined, names unique,
    shapes inferred, by probing too where that is wanted.

    Raises ModelError where it breaks an invariant of the graph.
    """
    _normalize(model)
    if probe:
        shapes.infer(model)
    else:
        infer_types(model)
    verify(model)


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
    if versions and not OLDEST <= versions[0] <= NEWEST:
        raise ModelError(
            f"{where} uses opset {versions[0]}, but this reader knows opsets {OLDEST} to {NEWEST}; "
            "export the model again with another opset."
        )


def _check_dense(proto: onnx.ModelProto, where: str) -> None:
    kinds = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)
    sparse = [node for node in proto.graph.node if any(a.type in kinds for a in node.attribute)]
    if proto.graph.sparse_initializer or sparse:
        raise ModelError(
            f"{where} stores sparse tensors, which are not read; store them dense (zeros keep their pattern)."
        )


def _lack_shapes(proto: onnx.ModelProto) -> list[str]:
    """The inputs and outputs that are tensors of no stated shape."""
    ports = [port for port in (*proto.graph.input, *proto.graph.output) if port.type.HasField("tensor_type")]
    return [port.name for port in ports if not port.type.tensor_type.HasField("shape")]


def _outside(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The initializers whose numbers stand in other files."""
    return [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def _whole(source: str | PathLike[str] | onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its external data in it, where one message holds them and they can be read."""
    tensors = _outside(proto)
    lengths = (
        int(e.value) for t in tensors for e in t.external_data if e.key == "length" and e.value.isdigit()
    )
    if isinstance(source, onnx.ModelProto) or not tensors or sum(lengths) > LARGEST_MESSAGE:
        return proto
    try:
        return onnx.load(str(source), "protobuf")
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError):
        return proto


def _with_shapes(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with the shapes of its outputs inferred, which onnx demands and ONNX Runtime does not."""
    try:
        found = proto if _outside(proto) else onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        found = proto
    lacking = _lack_shapes(found)
    if lacking:
        raise ModelError(
            f"{where}: {lacking[0]!r} is an input or output of no stated shape, and its number of axes does "
            "not follow from the rest; state a shape, whose dimensions may be names."
        )
    return found


def _check(source: str | PathLike[str] | onnx.ModelProto, proto: onnx.ModelProto, where: str) -> None:
    try:
        onnx.checker.check_model(proto if isinstance(source, onnx.ModelProto) else str(source))
    # The checker raises ValidationError, and ValueError or RuntimeError from its C++ side.
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(f"{where} is not a valid ONNX model: {error}") from error


def _convert(source: str | PathLike[str] | onnx.ModelProto, proto: onnx.ModelProto, where: str) -> ir.Model:
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


def _modern(model: ir.Model) -> ir.Model:
    """The model in a version that the rules read, or as it is, with the reason."""
    if opset_of(model) >= RULES_FROM:
        return model
    try:
        return modern(model)
    except ModelError as error:
        model.meta[VERBATIM] = f"{error}, so ONNX Runtime runs it as it is written."
        return model


def _normalize(model: ir.Model) -> None:
    InlinePass()(model)
    RemoveInitializersFromInputsPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    attach_patterns(model)
    model.graph.opset_imports[DOMAIN] = VERSION
    copy_stored_outputs(model.graph)
    name_dimensions(model.graph)
    name_nodes(model)
