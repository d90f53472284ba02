"""What nodes with loops and branches compute, which read values from outside of their bodies.

Found by computing it, as `graph/probe.py` does of nodes without bodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from openwork.graph.model import Array, ModelError, constant, describe, dims, is_onnx
from openwork.graph.part import IR_VERSION, captured, first_line, session
from openwork.graph.probe import free_sizes, shape_content

MOST_NODES = 200


def operands(node: ir.Node) -> Iterator[ir.Value]:
    """All that a node reads, its bodies' reads from outside among it."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured(node)


@dataclass(frozen=True)
class Nest:
    """The nodes that make a value of values that are known, and of constants.

    nodes: makers first. open: what else they read. shapes: Shape nodes whose result follows from names of
    free dimensions, which are not among the nodes.
    """

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    open: frozenset[ir.Value]
    shapes: tuple[ir.Node, ...]

    def evaluate(self, sizes: Mapping[str, int], contents: Mapping[ir.Value, Array]) -> Array:
        """The value's content; raises ModelError where it cannot be computed, KeyError for a free dimension
        without a size."""
        known = dict(contents)
        for node in self.shapes:
            known[node.outputs[0]] = shape_content(node, sizes)
        found = session(self._model(known))
        if isinstance(found, str):
            raise ModelError(found)
        names = {port.name for port in found.get_inputs()}
        feeds = {name: array for value, array in known.items() if (name := str(value.name)) in names}
        try:
            (result,) = found.run(None, feeds)
        # ONNX Runtime's exceptions share no base class but Exception.
        except Exception as error:
            raise ModelError(
                f"{describe(self.nodes[-1])} cannot be evaluated: {first_line(error)}"
            ) from error
        if not isinstance(result, np.ndarray):
            raise ModelError(f"{describe(self.nodes[-1])} cannot be evaluated: its result is no tensor.")
        return result

    def _model(self, known: Mapping[ir.Value, Array]) -> bytes:
        graph = onnx.GraphProto(name="nest")
        read = dict.fromkeys(value for node in self.nodes for value in operands(node))
        made = {value for node in self.nodes for value in node.outputs}
        for value in (value for value in read if value not in made):
            array = known[value] if value in known else constant(value)
            if array is None:
                raise ModelError(f"{value.name!r} is not known")
            if value in known:
                dtype = int(ir.DataType.from_numpy(array.dtype))
                graph.input.append(
                    onnx.helper.make_tensor_value_info(str(value.name), dtype, [None] * array.ndim)
                )
            else:
                graph.initializer.append(onnx.numpy_helper.from_array(array, str(value.name)))
        graph.node.extend(ir.to_proto(node) for node in self.nodes)
        graph.output.append(onnx.ValueInfoProto(name=str(self.value.name)))
        opset = self.nodes[-1].graph.opset_imports.get("", 18) if self.nodes[-1].graph is not None else 18
        imports = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        return bytes(model.SerializeToString(deterministic=True))


def nest(value: ir.Value, known: frozenset[ir.Value]) -> Nest | None:
    """The nodes that make a value of known ones; None where they are many, or not standard ones.

    A Shape of a value whose dimensions all are numbers or free dimensions of the graph's inputs is known too.
    """
    free = free_sizes(value)
    order: dict[ir.Node, None] = {}
    shapes: dict[ir.Node, None] = {}
    open_: set[ir.Value] = set()
    pending: list[tuple[ir.Value, bool]] = [(value, False)]
    while pending:
        current, ready = pending.pop()
        node = current.producer()
        if current in known or constant(current) is not None or node in order or node in shapes:
            continue
        if node is None or not is_onnx(node):
            open_.add(current)
        elif node.op_type == "Shape" and node.inputs[0] not in known and _bound(node.inputs[0], free):
            shapes[node] = None
        elif ready:
            order[node] = None
        elif len(order) > MOST_NODES:
            return None
        else:
            pending.append((current, True))
            pending.extend((read, False) for read in operands(node))
    return Nest(value, tuple(order), frozenset(open_), tuple(shapes))


def _bound(value: ir.Value | None, free: set[str]) -> bool:
    shape = dims(value)
    return shape is not None and all(isinstance(size, int) or size in free for size in shape)
