"""onnx's shape inference for nodes by themselves."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import onnx

log = logging.getLogger(__name__)

Types = Mapping[str, onnx.TypeProto]
Contents = Mapping[str, onnx.TensorProto]

_DEFAULT_OPSET = 18


def infer_outputs(
    node: onnx.NodeProto, imports: Sequence[onnx.OperatorSetIdProto], types: Types, contents: Contents
) -> dict[str, onnx.TypeProto]:
    """What onnx infers of a node's outputs, by name; nothing where it fails.

    types : of what the node reads. contents : of what is known of it.
    """
    versions = [entry.version for entry in imports if entry.domain in ("", "ai.onnx")]
    read = set(node.input)
    try:
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, int(versions[0]) if versions else _DEFAULT_OPSET, ""),
            node,
            {name: kind for name, kind in types.items() if name in read},
            {name: content for name, content in contents.items() if name in read},
            opset_imports=list(imports),
        )
    # onnx raises several unrelated classes here; each of them means that this node's shape stays unknown.
    except (
        RuntimeError,
        ValueError,
        TypeError,
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
        onnx.defs.SchemaError,
    ) as error:
        log.debug("shape inference: %s: %s", node.op_type, error)
        return {}
    return dict(found)


def infer_chain(
    nodes: Sequence[onnx.NodeProto],
    imports: Sequence[onnx.OperatorSetIdProto],
    types: Types,
    contents: Contents,
) -> dict[str, onnx.TypeProto]:
    """The same for nodes that read each other's outputs, Constants among them."""
    known, held = dict(types), dict(contents)
    made = dict[str, onnx.TypeProto]()
    for node in nodes:
        if node.op_type == "Constant":
            held[node.output[0]] = node.attribute[0].t
        found = infer_outputs(node, imports, known, held)
        known |= found
        made |= found
    return made
