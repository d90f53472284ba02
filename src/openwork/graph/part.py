"""Nodes of a graph as a session of ONNX Runtime, as they stand.

What is computed here decides what a model means, so it is computed by what runs such models: without ONNX
Runtime's own optimizations, on one thread, several nodes as one session. What ONNX Runtime has no kernel for
cannot be computed, and no model that holds it runs there either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from openwork.graph.model import Array, ModelError, constant, describe, is_onnx

IR_VERSION = 10
"""Of the models that are made here; every ONNX Runtime that this package takes reads it."""
OLDEST = 7
"""The first opset that ONNX Runtime reads."""
STORED = 64
"""Elements of a constant that is part of a session; larger ones are fed, so that sessions stay small."""
BRIDGED = {ir.DataType.BFLOAT16: ir.DataType.FLOAT}
"""Types that NumPy lacks, and wider ones in which they cross the border of a session."""


class Part:
    """Nodes, in topological order, as one session that computes some of their values.

    given: values whose contents are known when it runs, with contents of the same type. Constants need not be
    given. Raises ModelError where the nodes are not standard ones that stand by themselves.
    """

    def __init__(
        self, nodes: Sequence[ir.Node], wanted: Sequence[ir.Value], given: Mapping[ir.Value, Array]
    ) -> None:
        self.title = describe(nodes[-1]) if nodes else "A part without nodes"
        self._names: dict[ir.Value, str] = {}
        self._fed: dict[str, ir.Value] = {}
        self._graph = onnx.GraphProto(name="part")
        for node in nodes:
            self._check(node)
            self._read(node, given)
            self._graph.node.append(self._proto(node))
        self._outputs = [self._name(value) for value in wanted]
        self._graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._outputs)
        self._version = max([OLDEST, *(v for node in nodes for v in _versions(node, _imported(node)))])
        self._session: Any = None
        self._narrow: list[Any] = []

    def run(self, known: Mapping[ir.Value, Array]) -> list[Array]:
        """The wanted values; raises ModelError where they cannot be computed."""
        try:
            if self._session is None:
                self._session, self._narrow = self._made()
            feeds = {name: self._content(value, known) for name, value in self._fed.items()}
            results = self._session.run(None, feeds)
        # ONNX Runtime's exceptions share no base class but Exception.
        except Exception as error:
            raise ModelError(f"{self.title} cannot be evaluated: {first_line(error)}") from error
        if not all(isinstance(result, np.ndarray) for result in results):
            raise ModelError(f"{self.title} cannot be evaluated: its result is no tensor.")
        pairs = zip(results, self._narrow, strict=True)
        return [result if dtype is None else result.astype(dtype) for result, dtype in pairs]

    def _check(self, node: ir.Node) -> None:
        if not is_onnx(node) or node.graph is None:
            raise ModelError(
                f"{describe(node)} cannot be evaluated: only standard ONNX operators in a graph can."
            )
        outside = next(captured(node), None)
        if outside is not None:
            raise ModelError(
                f"{describe(node)} cannot be evaluated by itself: its branches read {outside.name!r} from "
                "outside."
            )

    def _read(self, node: ir.Node, given: Mapping[ir.Value, Array]) -> None:
        """Name what the node reads and declare what nothing here makes, small constants with contents."""
        for value in node.inputs:
            if value is None or value in self._names:
                continue
            array = given[value] if value in given else constant(value)
            if array is None:
                raise ModelError(f"{describe(node)} cannot be evaluated: {value.name!r} is not known.")
            if value not in given and array.size <= STORED and array.dtype.kind in "biuf":
                self._graph.initializer.append(
                    onnx.numpy_helper.from_array(np.asarray(array), self._name(value))
                )
            else:
                self._declare(value, _dtype_of(array))

    def _declare(self, value: ir.Value, dtype: ir.DataType) -> None:
        name = port = self._name(value)
        wide = BRIDGED.get(dtype)
        if wide is not None:
            port = f"{name}w"
            self._graph.node.append(onnx.helper.make_node("Cast", [port], [name], to=int(dtype)))
        self._graph.input.append(onnx.helper.make_tensor_value_info(port, int(wide or dtype), None))
        self._fed[port] = value

    def _content(self, value: ir.Value, known: Mapping[ir.Value, Array]) -> Array:
        array = known[value] if value in known else constant(value)
        if array is None:
            raise ModelError(f"{value.name!r} is not known")
        array = np.asarray(
            array
        )  # an operator of NumPy makes a number, which is no array, where there are no axes
        wide = BRIDGED.get(_dtype_of(array))
        return array if wide is None else array.astype(wide.numpy())

    def _name(self, value: ir.Value) -> str:
        """A number, so that equal parts are one session."""
        return self._names.setdefault(value, f"v{len(self._names)}")

    def _proto(self, node: ir.Node) -> onnx.NodeProto:
        proto = onnx.NodeProto()
        try:
            proto.CopyFrom(ir.to_proto(node))
        except ir.serde.SerdeError as error:
            raise ModelError(f"{describe(node)} cannot be written") from error
        for unused in ("name", "doc_string", "domain"):
            proto.ClearField(unused)
        del proto.input[:], proto.output[:], proto.metadata_props[:]
        proto.input.extend("" if value is None else self._name(value) for value in node.inputs)
        proto.output.extend("" if value.name == "" else self._name(value) for value in node.outputs)
        return proto

    def _made(self) -> tuple[Any, list[Any]]:
        """The session, and for each output its type in the model, where it leaves in a wider one."""
        session = self._open()
        types = [str(port.type) for port in session.get_outputs()]
        narrow = {f"tensor({dtype.name.lower()})": dtype for dtype in BRIDGED}
        found = [narrow.get(text) for text in types]
        if not any(found):
            return session, [None] * len(found)
        for port, dtype in zip(self._graph.output, found, strict=True):
            if dtype is not None:
                cast = onnx.helper.make_node("Cast", [port.name], [f"{port.name}w"], to=int(BRIDGED[dtype]))
                self._graph.node.append(cast)
                port.name = f"{port.name}w"
        return self._open(), [None if dtype is None else dtype.numpy() for dtype in found]

    def _open(self) -> Any:
        imports = [onnx.helper.make_opsetid("", self._version)]
        model = onnx.helper.make_model(self._graph, opset_imports=imports, ir_version=IR_VERSION)
        found = session(model.SerializeToString(deterministic=True))
        if isinstance(found, str):
            raise ModelError(found)
        return found


@lru_cache(maxsize=1024)
def session(model: bytes) -> Any:
    """A session of ONNX Runtime, or why there is none."""
    # Here, since reading a graph without anything to compute needs no ONNX Runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's exceptions share no base class but Exception.
    except Exception as error:
        return first_line(error)


def _imported(node: ir.Node) -> int:
    return 18 if node.graph is None else int(node.graph.opset_imports.get("", 18))


def _dtype_of(array: Array) -> ir.DataType:
    return ir.DataType.STRING if array.dtype.kind in "OSU" else ir.DataType.from_numpy(array.dtype)


def first_line(error: Exception) -> str:
    """What went wrong, without the numbers and words that ONNX Runtime puts in front."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """What the graphs in a node's attributes read from outside."""
    for graph in graphs_of(node):
        own = {*graph.inputs, *graph.initializers.values(), *(v for inner in graph for v in inner.outputs)}
        read = [value for inner in graph for value in (*inner.inputs, *captured(inner)) if value is not None]
        yield from (value for value in (*read, *graph.outputs) if value not in own)


def graphs_of(node: ir.Node) -> list[ir.Graph]:
    attributes = node.attributes.values()
    single = [a.as_graph() for a in attributes if a.type == ir.AttributeType.GRAPH]
    return single + [g for a in attributes if a.type == ir.AttributeType.GRAPHS for g in a.as_graphs()]


def _versions(node: ir.Node, imported: int) -> Iterator[int]:
    """The opsets in which the node's operator, and those in its branches, became what they are in its model.

    The largest of them means the same, and an ONNX Runtime that does not know the model's own may know it.
    """
    if not is_onnx(node):
        raise ModelError(f"{describe(node)} cannot be evaluated: only standard ONNX operators can.")
    try:
        yield onnx.defs.get_schema(node.op_type, imported, "").since_version
    except onnx.defs.SchemaError as error:
        raise ModelError(f"{describe(node)} cannot be evaluated: {first_line(error)}") from error
    for inner in (inner for graph in graphs_of(node) for inner in graph):
        yield from _versions(inner, imported)
