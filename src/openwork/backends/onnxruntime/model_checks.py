"""What an ONNX model must be before ONNX Runtime may read it.

The parts that an engine leaves to ONNX Runtime come from a file that nobody vouches for, and ONNX Runtime
trusts what it is given: it opens the files that a tensor names, runs the operators of any library that
registered some, and believes a shape. So the bytes are parsed and checked here first. The builder checks what
it writes in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import TensorProto

from openwork.backends.onnxruntime.stored import placed, stored_tensors, without_stored
from openwork.backends.onnxruntime.wire import WireError, check_growth
from openwork.engine.dtypes import DTYPES
from openwork.engine.program import Value
from openwork.support.fields import shown

_NEWEST = onnx.defs.onnx_opset_version()
DOMAINS: Mapping[str, tuple[int, int]] = {
    "": (7, _NEWEST),
    "ai.onnx": (7, _NEWEST),
    "ai.onnx.ml": (1, 5),
    "com.microsoft": (1, 1),
}
"""The domains that a part may use and the versions of each: the standard ones, and what ONNX Runtime itself
brings along, which its optimizer and its quantizer write into models. An operator of any other domain would
have to come from a library that the engine's user never chose."""

FOREIGN = frozenset({("com.microsoft", "EPContext")})
"""Operators of those domains that open files or libraries."""

LARGEST = 2**31 - 1
"""Bytes of a protobuf message, and the size of one dimension."""

_ELEMENT_TYPES = {
    name: TensorProto.STRING if dtype == np.object_ else onnx.helper.np_dtype_to_tensor_dtype(dtype)
    for name, dtype in DTYPES.items()
}
_NAMES_BY_BITS = {
    128: ("COMPLEX128",),
    64: ("DOUBLE", "INT64", "UINT64", "COMPLEX64"),
    32: ("FLOAT", "INT32", "UINT32"),
    16: ("FLOAT16", "BFLOAT16", "INT16", "UINT16"),
    8: (
        "INT8",
        "UINT8",
        "BOOL",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "FLOAT8E8M0",
    ),
    4: ("INT4", "UINT4", "FLOAT4E2M1"),
    2: ("INT2", "UINT2"),
}
_BITS = {
    TensorProto.DataType.Value(name): bits
    for bits, names in _NAMES_BY_BITS.items()
    for name in names
    if name in set(TensorProto.DataType.keys())
}
_STORED = frozenset(_ELEMENT_TYPES.values()) - {TensorProto.STRING}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_REFUSED = {
    "FunctionProto": ("no functions, which the builder writes out", "a function"),
    "SparseTensorProto": ("dense tensors only", "a sparse tensor"),
    "TrainingInfoProto": ("nothing for training", "training information"),
}


class ModelFault(ValueError):
    """A model that ONNX Runtime must not read: what was expected and what was found, in one phrase."""


def check_model(
    content: memoryview, inputs: Sequence[Value], outputs: Sequence[Value], stored: Sequence[int] = ()
) -> onnx.ModelProto:
    """Parse the model of a step and refuse everything that is not a plain graph with its data in the engine.

    content : u8 [bytes]. inputs, outputs : the step's values, which the model's ports must match in order.
    stored : the bytes of each tensor that the step has besides the model, which is an initializer of it.
    Returns the parsed model, without the fields that this version of ONNX does not know.
    Raises ModelFault, saying what was expected and what was found.
    """
    model = _parse(content)
    _check_versions(model)
    elsewhere = _check_stored(model, stored)
    for message in _messages(model):
        if any(message is tensor for tensor in elsewhere):
            continue
        kind = message.DESCRIPTOR.name
        if kind in _REFUSED:
            _refuse(*_REFUSED[kind])
        if kind in _CHECKS:
            _CHECKS[kind](message)
    _check_ports("inputs", model.graph.input, inputs)
    _check_ports("outputs", model.graph.output, outputs)
    _check_schema(model)
    return model


def _refuse(expected: str, found: str) -> NoReturn:
    raise ModelFault(f"expected {expected}, found {found}")


def _parse(content: memoryview) -> onnx.ModelProto:
    if len(content) > LARGEST:
        _refuse(f"at most {LARGEST} bytes", str(len(content)))
    try:
        check_growth(content, onnx.ModelProto.DESCRIPTOR)
        model: onnx.ModelProto = onnx.ModelProto.FromString(bytes(content))
    except (WireError, DecodeError) as error:
        raise ModelFault(f"expected an ONNX model, found {error}") from None
    model.DiscardUnknownFields()
    return model


def _check_versions(model: onnx.ModelProto) -> None:
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        _refuse(f"an IR version from 3 to {onnx.IR_VERSION}", str(model.ir_version))
    for entry in model.opset_import:
        if entry.domain not in DOMAINS:
            _refuse(f"operators of {_domains()}", f"the domain {shown(entry.domain)}")
        first, last = DOMAINS[entry.domain]
        if not first <= entry.version <= last:
            _refuse(
                f"version {first} to {last} of the domain {entry.domain or 'ai.onnx'}", str(entry.version)
            )


def _domains() -> str:
    return ", ".join(domain for domain in DOMAINS if domain)


def _messages(message: Any) -> Iterator[Any]:
    """The message and every one inside it: subgraphs, attributes and functions come of themselves."""
    pending = [message]
    while pending:
        current = pending.pop()
        yield current
        for field, value in current.ListFields():
            if field.message_type is not None:
                pending += [value] if isinstance(value, Message) else list(value)


def foreign_operator(domain: str, op_type: str) -> str | None:
    """Why ONNX Runtime may not run an operator, whatever its place in a model; None where it may."""
    if domain not in DOMAINS:
        return f"ONNX Runtime knows operators of {_domains()}, not {shown(op_type)} of {shown(domain)}"
    if (domain, op_type) in FOREIGN:
        return f"{op_type} of the domain {domain} opens files"
    return None


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in DOMAINS:
        _refuse(f"operators of {_domains()}", f"{shown(node.op_type)} of the domain {shown(node.domain)}")
    if (node.domain, node.op_type) in FOREIGN:
        _refuse("operators that open no files", f"{node.op_type} of the domain {node.domain}")


def _check_stored(model: onnx.ModelProto, stored: Sequence[int]) -> list[TensorProto]:
    """The initializers whose data are tensors of the step; refuses those that do not fill their shapes."""
    found = list(stored_tensors(model))
    places = sorted(placed(tensor) or 0 for tensor in found)
    if places != list(range(len(stored))):
        _refuse(f"each of {len(stored)} stored tensors in one initializer", f"those of {shown(places)}")
    for tensor in found:
        name = f"the tensor {shown(tensor.name)}"
        _check_dims(tensor, name)
        if tensor.data_type not in _STORED:
            _refuse("a stored tensor of a type that NumPy has", f"{name} of type {tensor.data_type}")
        expected = math.prod(tensor.dims) * _BITS[tensor.data_type] // 8
        if expected != (given := stored[placed(tensor) or 0]):
            _refuse(f"{expected} bytes for {shown(list(tensor.dims))} of {name}", f"{given} bytes")
    return found


def _check_dims(tensor: TensorProto, name: str) -> None:
    if any(not 0 <= dim <= LARGEST for dim in tensor.dims):
        _refuse(f"dimensions from 0 to {LARGEST}", f"{name} of {shown(list(tensor.dims))}")


def _check_tensor(tensor: TensorProto) -> None:
    name = f"the tensor {shown(tensor.name)}"
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data or tensor.HasField("segment"):
        _refuse("tensors whose data stand in the model", f"{name} with data outside of it")
    _check_dims(tensor, name)
    elements = math.prod(tensor.dims)
    expected, found = _extent(tensor, elements)
    if expected != found:
        _refuse(f"{expected} for the shape {shown(list(tensor.dims))} of {name}", found)


def _extent(tensor: TensorProto, elements: int) -> tuple[str, str]:
    """How much data a tensor of so many elements has, and how much this one has."""
    counts = {field: len(getattr(tensor, field)) for field in _TYPED}
    if tensor.data_type == TensorProto.STRING:
        return _filled({"string_data": elements}), _filled(counts)
    if tensor.data_type not in _BITS:
        return "a known element type", str(tensor.data_type)
    bits = _BITS[tensor.data_type]
    if tensor.HasField("raw_data"):
        return f"{-(-elements * bits // 8)} bytes", f"{len(tensor.raw_data)} bytes" + _also(counts)
    field = str(onnx.helper.tensor_dtype_to_field(tensor.data_type))
    return _filled({field: _numbers(tensor.data_type, bits, elements)}), _filled(counts)


def _numbers(data_type: int, bits: int, elements: int) -> int:
    """How many numbers of its typed field hold so many elements: complex ones take two, small ones share
    one."""
    if data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * elements
    return -(-elements * bits // 8) if bits < 8 else elements


def _filled(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {field}" for field, count in counts.items() if count) or "no data"


def _also(counts: Mapping[str, int]) -> str:
    return f" and {_filled(counts)}" if any(counts.values()) else ""


_CHECKS: Mapping[str, Callable[[Any], None]] = {"NodeProto": _check_node, "TensorProto": _check_tensor}


def _check_ports(role: str, ports: Sequence[onnx.ValueInfoProto], values: Sequence[Value]) -> None:
    if len(ports) != len(values):
        _refuse(f"the step's {len(values)} {role}", f"{len(ports)} {role}")
    for port, value in zip(ports, values, strict=True):
        tensor = port.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        fits = len(dims) == len(value.shape) and all(
            dim is None or dim == size for dim, size in zip(dims, value.shape, strict=True)
        )
        if tensor.elem_type != _ELEMENT_TYPES[value.dtype] or not tensor.HasField("shape") or not fits:
            found = ["free" if dim is None else dim for dim in dims]
            _refuse(
                f"{shown(port.name)} among the {role} to be the step's {value.dtype} {list(value.shape)}",
                f"element type {tensor.elem_type} and {shown(found)}",
            )


def _check_schema(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(without_stored(model))
    # The checker raises ValidationError, and ValueError or RuntimeError from its C++ side.
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelFault(f"expected a valid ONNX model, found {shown(str(error), 400)}") from None
