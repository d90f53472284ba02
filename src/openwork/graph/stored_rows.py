"""Tables whose rows a graph looks up, and the ids that number them, as native steps read them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    consumers,
    dims,
    is_openwork,
    make,
    needed,
    operand,
    producer,
)
from openwork.graph.rewrite import precedes

_SIGN = 128
"""What a signed byte of a table is raised by."""
_VIEWS = ("Reshape", "Unsqueeze", "Squeeze", "Flatten")


@dataclass(frozen=True)
class Table:
    """A table [V, H]: floats, or u8 with a scale and a zero point for each row.

    value: what the graph looks rows up in. rows: as they are stored; None for the initializer itself.
    """

    value: ir.Value
    shape: tuple[int, int]
    rows: Array | None = None
    scale: Array | None = None
    zero_point: Array | None = None

    @property
    def name(self) -> str:
        """Of the table as the model has it."""
        node = producer(self.value, "DequantizeLinear")
        return str((self.value if node is None else needed(node, 0)).name)

    def slots(self, graph: ir.Graph) -> dict[str, ir.Value]:
        """Initializers for the slots of an operator that reads the table."""
        if self.rows is None or self.scale is None or self.zero_point is None:
            return {"table": self.value}
        parts = {"rows": self.rows, "scale": self.scale, "zero_point": self.zero_point}
        made = {name: add_initializer(graph, f"{self.name}.{name}", array) for name, array in parts.items()}
        return {"table": made["rows"], "table_scale": made["scale"], "table_zero_point": made["zero_point"]}


def table(value: ir.Value | None) -> Table | None:
    """The table that a value is: a stored one of floats, or a stored one of bytes that is dequantized, each
    row by itself or all alike."""
    if value is None:
        return None
    found = constant(value)
    if found is not None:
        whole = found.ndim == 2 and found.dtype == np.float32 and found.size > 0
        return Table(value, found.shape) if whole else None
    node = producer(value, "DequantizeLinear")
    return None if node is None else _dequantized(value, node)


def _dequantized(value: ir.Value, node: ir.Node) -> Table | None:
    rows, scale = constant(needed(node, 0)), constant(needed(node, 1))
    if (
        rows is None
        or scale is None
        or rows.ndim != 2
        or rows.dtype not in (np.int8, np.uint8)
        or not rows.size
    ):
        return None
    count = rows.shape[0]
    by_row = scale.size == 1 or (scale.shape == (count,) and attributes(node).get("axis", 1) % 2 == 0)
    if not by_row or attributes(node).get("block_size", 0) or scale.dtype != np.float32:
        return None
    given = constant(operand(node, 2))
    zero = np.zeros(1, rows.dtype) if given is None else given.reshape(-1)
    raised = _SIGN if rows.dtype == np.int8 else 0
    return Table(
        value,
        (rows.shape[0], rows.shape[1]),
        (rows.astype(np.int16) + raised).astype(np.uint8),
        np.broadcast_to(scale.reshape(-1), (count,)).copy(),
        (np.broadcast_to(zero, (count,)).astype(np.int16) + raised).astype(np.uint8),
    )


@dataclass(frozen=True)
class Columns:
    """Columns [begin, end) of a value, all its dimensions but the first taken as one."""

    value: ir.Value
    begin: int
    end: int


def columns(value: ir.Value) -> Columns | None:
    """Of which value these ids, [B, ..] of fixed sizes behind the first, are columns: of one that is cut or
    viewed into them. None for ids of other shapes."""
    shape = dims(value)
    if shape is None or not shape or not all(isinstance(size, int) for size in shape[1:]):
        return None
    whole = Columns(value, 0, prod(int(size or 0) for size in shape[1:]))
    node = producer(value, "Gather", "Slice", *_VIEWS)
    given = None if node is None else dims(needed(node, 0))
    if node is None or not given or given[0] != shape[0] or given[0] is None:
        return whole
    inner = columns(needed(node, 0))
    cut = None if inner is None else _cut(node, given)
    if inner is None or cut is None:
        return whole
    each = prod(int(size or 0) for size in given[2:])
    return Columns(inner.value, inner.begin + cut[0] * each, inner.begin + cut[1] * each)


def _cut(node: ir.Node, given: tuple[int | str | None, ...]) -> tuple[int, int] | None:
    """Which places of the second axis a node keeps; None where it does something else."""
    size = given[1] if len(given) > 1 else 1
    assert isinstance(size, int)
    if node.op_type in _VIEWS:
        return 0, size
    if len(given) < 2:
        return None
    if node.op_type == "Gather":
        at = constant(needed(node, 1))
        if attributes(node).get("axis", 0) % len(given) != 1 or at is None or at.size != 1:
            return None
        place = int(at.reshape(-1)[0]) % size
        return place, place + 1
    return _slice(node, len(given), size)


def _slice(node: ir.Node, rank: int, size: int) -> tuple[int, int] | None:
    numbers = [constant(operand(node, index)) for index in range(1, 5)]
    starts, ends, axes, steps = numbers
    if starts is None or ends is None or starts.size != 1 or (steps is not None and steps.tolist() != [1]):
        return None
    if axes is None or axes.tolist()[0] % rank != 1:
        return None
    begin, end = (min(max(at + size if at < 0 else at, 0), size) for at in (int(starts[0]), int(ends[0])))
    return (begin, end) if begin < end else None


def as_integers(value: ir.Value, before: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """The ids as INT64, which native steps read, and a new node that makes them of INT32; a node in front of
    `before` that does so already is taken."""
    if value.dtype == ir.DataType.INT64:
        return value, []
    for node in consumers(value):
        to = attributes(node).get("to") if node.op_type == "Cast" else None
        if to == int(ir.DataType.INT64) and node.graph is before.graph and precedes(node, before):
            return node.outputs[0], []
    node = ir.Node(
        "", "Cast", [value], [ir.AttrInt64("to", int(ir.DataType.INT64))], name=f"{value.name}.ids"
    )
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(ir.DataType.INT64)
    node.meta["refusals"] = [("ids", f"it makes INT64, which native steps read, of {value.name!r}")]
    return node.outputs[0], [node]


def as_matrix(value: ir.Value, before: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """INT64 ids [B, ..] as [B, W], and a new node that views them so where they have other axes."""
    shape = dims(value) or ()
    if len(shape) == 2:
        return value, []
    width = prod(int(size or 0) for size in shape[1:])
    for node in consumers(value):
        same = is_openwork(node, "Reshape") and list(attributes(node)["shape"]) == [0, width]
        if same and node.graph is before.graph and precedes(node, before):
            return node.outputs[0], []
    node = make("Reshape", [value], {"shape": [0, width]}, f"{value.name}.columns")
    return node.outputs[0], [node]
