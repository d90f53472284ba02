"""What onnx infers of a model's values: types and shapes, given to the values of its main graph.

Values inside of subgraphs keep what the model says of them. onnx-ir's own pass takes an inferred sequence for
a tensor, so what it writes into the bodies of loops is wrong; nothing here reads those.
"""

from __future__ import annotations

import logging

import onnx
import onnx_ir as ir

from openwork.graph.qoperators import with_stand_ins
from openwork.graph.skeleton import skeleton

log = logging.getLogger(__name__)

_FAULTS = (
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    ir.serde.SerdeError,
    ValueError,
    RuntimeError,
)
"""What inference raises, and what its C++ side happens to raise; the values stay as they are."""


def infer_types(model: ir.Model) -> None:
    """Give the values of the main graph the types and shapes that onnx infers; where it fails, leave all."""
    try:
        proto = with_stand_ins(skeleton(model))
        found = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
    except _FAULTS as error:
        log.warning("The shapes of the model could not be inferred: %s", error)
        return
    types = {port.name: port.type for port in (*found.graph.value_info, *found.graph.output)}
    for node in model.graph:
        for value in node.outputs:
            if value.name in types:
                _take(value, types[value.name])


def _take(value: ir.Value, found: onnx.TypeProto) -> None:
    kind = ir.serde.deserialize_type_proto_for_type(found)
    if kind is not None and (value.type is None or value.dtype is None):
        value.type = kind
    if isinstance(value.type, ir.TensorType):
        value.shape = ir.serde.deserialize_type_proto_for_shape(found) or value.shape
