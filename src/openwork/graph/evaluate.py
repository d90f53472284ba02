"""Computing standard ONNX nodes with onnx's reference evaluator: for constants, shapes, masks; slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from openwork.graph.model import ModelError, constant, describe

Array = NDArray[Any]


FIRST_KNOWN = {"QuantizeLinear": 19, "DequantizeLinear": 19}
"""The first version that onnx's evaluator has; for 8-bit integers the earlier ones mean the same."""


def _version(node: ir.Node) -> int:
    graph_version = 18 if node.graph is None else int(node.graph.opset_imports.get("", 18))
    return max(graph_version, FIRST_KNOWN.get(node.op_type, 0))


@lru_cache(maxsize=4096)
def _evaluator(serialized: bytes, version: int, arity: tuple[bool, ...]) -> ReferenceEvaluator:
    node = onnx.NodeProto.FromString(serialized)
    unknown = onnx.TypeProto()
    inputs = [
        onnx.helper.make_value_info(name, unknown)
        for name, here in zip(node.input, arity, strict=True)
        if here
    ]
    outputs = [onnx.helper.make_value_info(name, unknown) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "node", inputs, outputs)
    imports = [onnx.helper.make_opsetid("", version)]
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))


def _anonymous(node: ir.Node, present: Sequence[bool]) -> bytes:
    """The node with its values numbered, so that equal nodes share one evaluator."""
    proto = ir.to_proto(node)
    proto.name = ""
    del proto.input[:], proto.output[:], proto.metadata_props[:]
    proto.input.extend(f"i{index}" if here else "" for index, here in enumerate(present))
    proto.output.extend(f"o{index}" for index in range(len(node.outputs)))
    return bytes(proto.SerializeToString(deterministic=True))


_KNOWN: WeakKeyDictionary[ir.Node, dict[tuple[bool, ...], ReferenceEvaluator]] = WeakKeyDictionary()
"""The evaluators of nodes that were computed before, since probing computes the same ones many times; nothing
changes a node's attributes once it is made."""


def _evaluator_of(node: ir.Node, present: tuple[bool, ...]) -> ReferenceEvaluator:
    known = _KNOWN.setdefault(node, {})
    if present not in known:
        known[present] = _evaluator(_anonymous(node, present), _version(node), present)
    return known[present]


def _gather_elements(node: ir.Node, data: Array, indices: Array) -> Array:
    """As the standard says and onnx's evaluator does not: off the axis the indices may be the smaller."""
    axis = node.attributes.get_int("axis", 0) % data.ndim
    kept = tuple(slice(None) if a == axis else slice(size) for a, size in enumerate(indices.shape))
    return np.take_along_axis(data[kept], indices, axis)


_OWN: dict[str, Callable[..., Array]] = {"GatherElements": _gather_elements}


def run_onnx_node(node: ir.Node, inputs: Sequence[Array | None]) -> list[Array | None]:
    """The outputs of one standard ONNX node; raises ModelError if it cannot be computed here."""
    if node.graph is None or node.domain not in ("", "ai.onnx"):
        raise ModelError(
            f"{describe(node)} cannot be evaluated: only standard ONNX operators in a graph can."
        )
    present = tuple(value is not None for value in inputs)
    try:
        if node.op_type in _OWN:
            return [_OWN[node.op_type](node, *inputs)]
        evaluator = _evaluator_of(node, present)
        feeds = {f"i{index}": value for index, value in enumerate(inputs) if value is not None}
        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in evaluator.run(None, feeds)]
    # The evaluator raises what its implementations happen to raise; all of it means "this cannot be computed
    # here".
    except Exception as error:
        raise ModelError(f"{describe(node)} cannot be evaluated: {error}") from error


def run_nodes(nodes: Sequence[ir.Node], known: Mapping[ir.Value, Array]) -> dict[ir.Value, Array | None]:
    """All values of some nodes, in topological order, from the known values and the graph's initializers."""
    values: dict[ir.Value, Array | None] = dict(known)
    for node in nodes:
        operands = []
        for value in node.inputs:
            operands.append(None if value is None else values[value] if value in values else constant(value))
        results = run_onnx_node(node, operands)
        for value, result in zip(node.outputs, results, strict=False):
            values.setdefault(value, result)
    return values
