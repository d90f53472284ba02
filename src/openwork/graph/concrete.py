"""One pass of shape inference over a graph with numbers for its free dimensions."""

from __future__ import annotations

import logging
import math
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import ModelError, constant, dims, is_onnx, needed
from openwork.graph.node_inference import infer_chain
from openwork.graph.probe import Sizes, shape_content
from openwork.graph.qoperators import form_of, stand_ins

log = logging.getLogger(__name__)

Array = NDArray[Any]
Shape = tuple[int | None, ...]
SMALL = 4096
"""Elements of a value whose content is computed: shapes, positions; not hidden states."""

ELEMENTWISE = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Sum", "Mean", "Max", "Min", "PRelu", "Where"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor"),
    )
)
"""Operators that pair the elements of their operands, from the last axis on."""


class Concrete:
    """The shapes of a graph's values for these sizes of its free dimensions.

    worked: the nodes whose results' shapes were found. failed: those of known operands whose results' shapes
    cannot be inferred, or are empty: the model does not run so. pairs: of elementwise ones among them, the
    names whose sizes differ where elements meet.
    """

    def __init__(self, graph: ir.Graph, sizes: Sizes, messages: dict[ir.Node, onnx.NodeProto]) -> None:
        """messages: the graph's nodes as ONNX, which several runs share; those that are missing are added."""
        self.graph, self.sizes, self.messages = graph, sizes, messages
        self.worked: set[ir.Node] = set()
        self.failed: set[ir.Node] = set()
        self.pairs: dict[ir.Node, set[frozenset[str]]] = {}
        self._types: dict[ir.Value, onnx.TypeProto] = {}
        self._contents: dict[ir.Value, Array] = {}
        self._imports = [onnx.helper.make_opsetid(k, v) for k, v in graph.opset_imports.items()]
        self._run()

    def shape(self, value: ir.Value) -> Shape | None:
        """The value's shape, as far as it can be known."""
        kind = self._types.get(value)
        return None if kind is None else _shape(kind)

    def _run(self) -> None:
        for value in [*self.graph.inputs, *self.graph.initializers.values()]:
            shape = dims(value)
            if shape is not None and value.dtype is not None:
                self._know(value, [d if isinstance(d, int) else self.sizes.get(str(d)) for d in shape])
            array = constant(value)
            if array is not None and array.size <= SMALL:
                self._contents[value] = array
        for node in self.graph:
            self._visit(node)

    def _know(self, value: ir.Value, shape: list[int | None]) -> None:
        dtype = int(value.dtype) if value.dtype is not None else 0
        self._types[value] = onnx.helper.make_tensor_type_proto(dtype, shape)

    def _visit(self, node: ir.Node) -> None:
        if not is_onnx(node) and form_of(node.domain, node.op_type, len(node.inputs)) is None:
            return
        read = [value for value in node.inputs if value is not None]
        if node.op_type == "Shape" and None not in (self.shape(read[0]) or (None,)):
            self._store(node.outputs[0], self._shape_of(node))
        elif all(value in self._types for value in read):
            self._infer(node, read)
            if (
                read
                and is_onnx(node)
                and self._small(node)
                and all(value in self._contents for value in read)
            ):
                self._compute(node)
            self._judge(node, read)

    def _small(self, node: ir.Node) -> bool:
        """Whether the results, where their shapes are known, are small enough to be computed."""
        return all(math.prod(d or 0 for d in self.shape(v) or ()) <= SMALL for v in node.outputs)

    def _judge(self, node: ir.Node, read: list[ir.Value]) -> None:
        """Note whether the node worked; numbers that are computed from shapes may be none at all."""
        sizes = [d for v in node.outputs if v not in self._contents for d in self.shape(v) or ()]
        if all(v in self._types for v in node.outputs if v.uses() or v.is_graph_output()) and 0 not in sizes:
            self.worked.add(node)
            return
        self.failed.add(node)
        if node.op_type in ELEMENTWISE:
            self.pairs[node] = self._met(read)

    def _met(self, read: list[ir.Value]) -> set[frozenset[str]]:
        """The pairs of names whose different sizes meet on an axis of the operands."""
        names = {size: name for name, size in reversed(self.sizes.items())}
        shapes, met = [(self.shape(value) or ())[::-1] for value in read], set()
        for axis in range(max(map(len, shapes))):
            sizes = {shape[axis] for shape in shapes if axis < len(shape)} - {1}
            if len(sizes) == 2 and all(size in names for size in sizes):
                met.add(frozenset(names[size] for size in sizes if size is not None))
        return met

    def _shape_of(self, node: ir.Node) -> Array:
        stand_in = ir.Value(shape=ir.Shape(self.shape(needed(node, 0)) or ()))
        return shape_content(ir.Node("", "Shape", [stand_in], list(node.attributes.values())), {})

    def _store(self, value: ir.Value, array: Array) -> None:
        if array.size <= SMALL:
            self._contents[value] = array
        self._types[value] = onnx.helper.make_tensor_type_proto(
            onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )

    def _compute(self, node: ir.Node) -> None:
        try:
            results = run_onnx_node(node, [None if v is None else self._contents[v] for v in node.inputs])
        except ModelError as error:
            log.debug("shape inference: %s", error)
            return
        for value, result in zip(node.outputs, results, strict=False):
            if result is not None:
                self._store(value, result)

    def _message(self, node: ir.Node) -> onnx.NodeProto:
        if node not in self.messages:
            self.messages[node] = ir.to_proto(node)
        return self.messages[node]

    def _infer(self, node: ir.Node, read: list[ir.Value]) -> None:
        """Of an operator on integers what its stand-ins say."""
        contents = {
            str(value.name): onnx.numpy_helper.from_array(self._contents[value], str(value.name))
            for value in read
            if value in self._contents
        }
        types = {str(value.name): self._types[value] for value in read}
        try:
            nodes = list(stand_ins(self._message(node), self._imports))
        # Bytes that are no text in a name.
        except ir.serde.SerdeError as error:
            log.debug("shape inference: %s: %s", node.op_type, error)
            return
        found = infer_chain(nodes, self._imports, types, contents)
        for value in node.outputs:
            if str(value.name) in found:
                self._types[value] = found[str(value.name)]


def _shape(kind: onnx.TypeProto) -> Shape | None:
    if not kind.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.tensor_type.shape.dim)
