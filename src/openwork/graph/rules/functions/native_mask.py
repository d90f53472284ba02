"""A key mask as native steps read it, INT64 [batch, length], in nodes of ONNX that all its readers share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.key_masks import NOT_ZERO, KeyMask
from openwork.graph.mask_contents import INTEGERS
from openwork.graph.model import dims
from openwork.graph.rewrite import precedes

_MADE = "native masks"
"""Where a graph keeps in its `meta` the masks that were made: KeyMask -> value."""

_COMPARISONS = {"not equal": "Equal", "equal": "Equal", "above": "Greater", "below": "Less"}


def native_mask(graph: ir.Graph, mask: KeyMask, before: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """The mask as an INT64 value [batch, length], 0 where a key is dropped, and new nodes that make it.

    There are none where the input is such a mask, or where nodes in front of `before` make it for another
    reader.
    """
    known = graph.meta.setdefault(_MADE, {})
    made = known.get(mask)
    maker = None if made is None else made.producer()
    if made is not None and maker is not None and maker.graph is graph and precedes(maker, before):
        return made, []
    chain = _Chain(graph, mask)
    value = chain.result()
    if chain.nodes:
        known[mask] = value
    return value, chain.nodes


class _Chain:
    """Nodes that make the INT64 mask, each on the result of the one before."""

    def __init__(self, graph: ir.Graph, mask: KeyMask) -> None:
        self.graph, self.mask = graph, mask
        self.name = f"{mask.source.name}.keys"
        self.value = mask.source
        self.shape = ir.Shape(mask.shape)
        self.nodes: list[ir.Node] = []

    def result(self) -> ir.Value:
        test = self.mask.test
        if len(dims(self.value) or ()) != 2:
            self.add("Reshape", self._dtype, self._stored("shape", np.array([0, -1], np.int64)))
        if test != NOT_ZERO:
            self._compare()
        elif self._dtype not in (ir.DataType.BOOL, ir.DataType.INT64):
            self.cast(ir.DataType.BOOL)
        if self._dtype != ir.DataType.INT64:
            self.cast(ir.DataType.INT64)
        return self.value

    @property
    def _dtype(self) -> ir.DataType:
        assert self.value.dtype is not None
        return self.value.dtype

    def _compare(self) -> None:
        test = self.mask.test
        if self._dtype == ir.DataType.BOOL:
            self.add("Not", ir.DataType.BOOL)
            return
        # ONNX Runtime compares these of the integers and of the floats.
        if self._dtype in INTEGERS - {ir.DataType.INT64}:
            self.cast(ir.DataType.INT64)
        elif self._dtype == ir.DataType.FLOAT16:
            self.cast(ir.DataType.FLOAT)
        number = self._stored("number", np.array(test.number, self._dtype.numpy()))
        self.add(_COMPARISONS[test.relation], ir.DataType.BOOL, number)
        if test.relation == "not equal":
            self.add("Not", ir.DataType.BOOL)

    def _stored(self, name: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self.graph, f"{self.name}.{name}", array)

    def cast(self, to: ir.DataType) -> None:
        self.add("Cast", to, to=int(to))

    def add(self, op_type: str, dtype: ir.DataType, *others: ir.Value, **attributes: int) -> None:
        given = {name: ir.AttrInt64(name, number) for name, number in attributes.items()}
        node = ir.Node("", op_type, [self.value, *others], list(given.values()), name=self._name(op_type))
        node.outputs[0].shape, node.outputs[0].type = self.shape, ir.TensorType(dtype)
        why = f"it makes INT64 zeros and ones, which native steps read, of {self.mask.source.name!r}"
        node.meta["refusals"] = [("key mask", why)]
        self.nodes.append(node)
        self.value = node.outputs[0]

    def _name(self, op_type: str) -> str:
        return f"{self.name}.{op_type}.{len(self.nodes)}"
