"""Shapes of all values, with the names of the free dimensions kept.

onnx's own inference goes first. Where an exporter computes a shape with operators that it cannot follow, the
graph's shapes are inferred again with numbers in place of the names, for several numbers, and each dimension
takes the name that it follows.
"""

from __future__ import annotations

import logging
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import Dim, ModelError, constant, dims, is_onnx
from openwork.graph.probe import bind_sizes, fixed_sizes, free_sizes, shape_content

log = logging.getLogger(__name__)

Array = NDArray[Any]
SMALL = 4096


class _Concrete:
    """One pass over a graph with numbers for its free dimensions."""

    def __init__(self, graph: ir.Graph, sizes: dict[str, int]) -> None:
        self.graph, self.sizes = graph, sizes
        self.types: dict[ir.Value, onnx.TypeProto] = {}
        self.contents: dict[ir.Value, Array] = {}
        self.imports = [onnx.helper.make_opsetid(k, v) for k, v in graph.opset_imports.items()]

    def run(self) -> dict[ir.Value, tuple[int | None, ...]]:
        """The shape of each value, as far as it can be known."""
        for value in [*self.graph.inputs, *self.graph.initializers.values()]:
            shape = dims(value)
            if shape is not None and value.dtype is not None:
                self._know(value, [d if isinstance(d, int) else self.sizes.get(str(d)) for d in shape])
            array = constant(value)
            if array is not None and array.size <= SMALL:
                self.contents[value] = array
        for node in self.graph:
            self._visit(node)
        return {
            value: _shape(kind) for value, kind in self.types.items() if kind.tensor_type.HasField("shape")
        }

    def _know(self, value: ir.Value, shape: list[int | None]) -> None:
        dtype = int(value.dtype) if value.dtype is not None else 0
        self.types[value] = onnx.helper.make_tensor_type_proto(dtype, shape)

    def _visit(self, node: ir.Node) -> None:
        if not is_onnx(node):
            return
        read = [value for value in node.inputs if value is not None]
        if node.op_type == "Shape" and self._known_shape(read[0]):
            self._store(node.outputs[0], self._shape_of(node))
        elif read and all(value in self.contents for value in read):
            self._compute(node)
        elif all(value in self.types for value in read):
            self._infer(node, read)

    def _known_shape(self, value: ir.Value) -> bool:
        kind = self.types.get(value)
        return kind is not None and kind.tensor_type.HasField("shape") and None not in _shape(kind)

    def _shape_of(self, node: ir.Node) -> Array:
        stand_in = ir.Value(shape=ir.Shape(_shape(self.types[node.inputs[0]])))  # type: ignore[index]
        return shape_content(ir.Node("", "Shape", [stand_in], list(node.attributes.values())), {})

    def _store(self, value: ir.Value, array: Array) -> None:
        self.contents[value] = array
        self.types[value] = onnx.helper.make_tensor_type_proto(
            onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )

    def _compute(self, node: ir.Node) -> None:
        try:
            results = run_onnx_node(node, [None if v is None else self.contents[v] for v in node.inputs])
        except ModelError as error:
            log.debug("shape inference: %s", error)
            return
        for value, result in zip(node.outputs, results, strict=False):
            if result is not None and result.size <= SMALL:
                self._store(value, result)

    def _infer(self, node: ir.Node, read: list[ir.Value]) -> None:
        version = int(self.graph.opset_imports.get("", 18))
        data = {
            str(value.name): onnx.numpy_helper.from_array(self.contents[value], str(value.name))
            for value in read
            if value in self.contents
        }
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "")
            found = onnx.shape_inference.infer_node_outputs(
                schema,
                ir.to_proto(node),
                {str(v.name): self.types[v] for v in read},
                data,
                opset_imports=self.imports,
            )
        # onnx raises several unrelated classes here; each of them means that this node's shape stays unknown.
        except (
            RuntimeError,
            ValueError,
            TypeError,
            onnx.shape_inference.InferenceError,
            onnx.defs.SchemaError,
        ) as error:
            log.debug("shape inference: %s: %s", node.op_type, error)
            return
        for value in node.outputs:
            if str(value.name) in found:
                self.types[value] = found[str(value.name)]


def _shape(kind: onnx.TypeProto) -> tuple[int | None, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim)


def infer(model: ir.Model) -> None:
    """Give every value of the model its shape and element type, where they can be known."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    graph = model.graph
    if all(_settled(value) for node in graph for value in node.outputs):
        return
    inputs = list(graph.inputs)
    probes, shapes = [], []
    for batch, length in fixed_sizes(inputs):
        probes.append(bind_sizes(inputs, batch, length))
        shapes.append(_Concrete(graph, probes[-1]).run())
    for node in graph:
        for value in node.outputs:
            if not _settled(value):
                _settle(value, probes, [found.get(value) for found in shapes])


def _settled(value: ir.Value) -> bool:
    shape = dims(value)
    free = free_sizes(value)
    return shape is not None and all(isinstance(d, int) or d in free for d in shape)


def _settle(
    value: ir.Value, probes: list[dict[str, int]], shapes: list[tuple[int | None, ...] | None]
) -> None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(probes) or len({len(shape) for shape in known}) != 1:
        return
    before = dims(value) or (None,) * len(known[0])
    found: list[Dim] = []
    for axis in range(len(known[0])):
        name = _name(probes, [shape[axis] for shape in known])
        found.append(name if name is not None else before[axis] if axis < len(before) else None)
    value.shape = ir.Shape(found)


def _name(probes: list[dict[str, int]], sizes: list[int | None]) -> Dim:
    """The integer that a dimension always is, or the name of the free one that it always equals."""
    if None in sizes:
        return None
    for name in probes[0]:
        if all(probe[name] == size for probe, size in zip(probes, sizes, strict=True)):
            return name if len(set(sizes)) > 1 or len(probes) == 1 else sizes[0]
    return sizes[0] if len(set(sizes)) == 1 else None
