"""Models of any size: their large tensors held apart from the rest, which protobuf takes only up to 2 GiB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from openwork.graph.model import Array
from openwork.graph.skeleton import LARGE, large_tensors, skeleton
from openwork.graph.slots import is_read
from openwork.support.files import resolved, write_atomic

LARGEST_MESSAGE = (1 << 31) - (1 << 24)
"""Bytes of tensors in one file; protobuf takes 2 GiB, of which the graph itself needs a little."""

ALIGNMENT = 4096
"""Of a tensor in a file of external data, so that it can be mapped into memory."""


def large_floats(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """The initializers of the model's graph that hold large float32 tensors, by their names, but for those
    that nothing reads: ONNX Runtime would not find them."""
    read = {name for name, value in model.graph.initializers.items() if is_read(value)}
    found = large_tensors(model).items()
    return {name: t for name, t in found if t.dtype == ir.DataType.FLOAT and name in read}


def load_small(model: ir.Model) -> None:
    """Take external data into the model, in place; large float32 tensors stay where they are."""
    tensors = large_floats(model)
    for name in tensors:
        model.graph.initializers[name].const_value = None
    ir.external_data.load_to_model(model)
    for name, tensor in tensors.items():
        model.graph.initializers[name].const_value = tensor


def bytes_of(tensor: ir.TensorProtocol) -> memoryview | bytes:
    """A tensor's bytes as ONNX stores them; a view where the numbers lie like that in memory."""
    if tensor.dtype.bitwidth < 8:
        return tensor.tobytes()
    array: Array = np.ascontiguousarray(tensor.numpy())
    return array.reshape(-1).view(np.uint8).data


def parts(model: ir.Model) -> Iterator[memoryview | bytes]:
    """All that a model is, as bytes, for a digest."""
    tensors = large_tensors(model)
    yield skeleton(model).SerializeToString(deterministic=True)
    for name, tensor in tensors.items():
        yield name.encode()
        yield bytes_of(tensor)


def check(model: ir.Model) -> None:
    """Let onnx check the model, its large tensors apart; raises what `onnx.checker` raises."""
    onnx.checker.check_model(skeleton(model))


def write_model(model: ir.Model, path: str | PathLike[str]) -> Path:
    """Write the model, whole or not at all.

    Where its tensors are too many bytes for one file they go into `<file>.data` beside it, as external data.
    Raises as `write_atomic`.
    """
    stored = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype != ir.DataType.STRING
    }
    if sum(tensor.nbytes for tensor in stored.values()) <= LARGEST_MESSAGE:
        write_atomic(path, [ir.to_proto(model).SerializeToString()])
        return Path(path)
    target = resolved(path)
    data = target.with_name(target.name + ".data")
    apart = {name: tensor for name, tensor in stored.items() if tensor.nbytes >= LARGE}
    shell = pointing_to(model, data.name, apart)
    # The tensors come first: a model without its tensors would be found, tensors without a model are not.
    write_atomic(data, _aligned(apart))
    write_atomic(target, [ir.to_proto(shell).SerializeToString()])
    return Path(path)


def pointing_to(model: ir.Model, location: str, tensors: Mapping[str, ir.TensorProtocol]) -> ir.Model:
    """A copy of the model whose tensors of these names lie in a file of external data, one after another."""
    shell = model.clone()
    offset = 0
    for name, tensor in tensors.items():
        shell.graph.initializers[name].const_value = ir.ExternalTensor(
            location, offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
        )
        offset += tensor.nbytes + -tensor.nbytes % ALIGNMENT
    return shell


def _aligned(tensors: Mapping[str, ir.TensorProtocol]) -> Iterator[memoryview | bytes]:
    for tensor in tensors.values():
        yield bytes_of(tensor)
        yield bytes(-tensor.nbytes % ALIGNMENT)
