"""Tensors of a fallback step's model that stand in the engine beside it, so that they are mapped, not copied,
and a model may be larger than the two gigabytes of a protobuf message.

The model names each as external data in the place `data.N`, which is no file: the step's tensor of that slot
holds its bytes, and ONNX Runtime is given them as they lie in the mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from openwork.engine.program import data_slot

Array = NDArray[Any]


def placed(tensor: onnx.TensorProto) -> int | None:
    """The number of the slot that a tensor's data stand in; None for one that names anything else."""
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    if tensor.data_location != onnx.TensorProto.EXTERNAL or len(entries) != 1 or entries[0][0] != "location":
        return None
    number = entries[0][1].removeprefix(data_slot(0)[:-1])
    # As `data_slot` writes it, and nothing else.
    return int(number) if number.isdecimal() and data_slot(int(number)) == entries[0][1] else None


def without_stored(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the tensors that stand elsewhere as inputs, for who would look for their files."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    kept = [tensor for tensor in copied.graph.initializer if placed(tensor) is None]
    known = {port.name for port in copied.graph.input}
    ports = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in stored_tensors(copied)
        if tensor.name not in known
    ]
    del copied.graph.initializer[:]
    copied.graph.initializer.extend(kept)
    copied.graph.input.extend(ports)
    return copied


def with_stored(model: onnx.ModelProto, tensors: Sequence[onnx.TensorProto]) -> None:
    """Put the tensors that `without_stored` made inputs back in place."""
    names = {tensor.name for tensor in tensors}
    ports = [port for port in model.graph.input if port.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    model.graph.initializer.extend(tensors)


def stored_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The tensors of a model whose data stand in the engine."""
    return (tensor for tensor in model.graph.initializer if placed(tensor) is not None)


def contents(tensors: Mapping[str, str]) -> list[str]:
    """The names of the engine's tensors that hold a step's data, in the order of their slots.

    tensors : of the step, by slot.
    """
    return [tensors[data_slot(number)] for number in range(len(tensors) - 1)]


def view(tensor: onnx.TensorProto, data: Array) -> Array:
    """The engine's bytes as an array of the tensor's type and shape."""
    dtype: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return data.view(dtype).reshape(tuple(tensor.dims))
