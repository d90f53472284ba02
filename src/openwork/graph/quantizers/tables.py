"""Tables that a graph looks rows up in as INT8, each row with a scale, behind a DequantizeLinear."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import onnx_ir as ir

from openwork.graph.edit import add_initializer
from openwork.graph.model import attributes, constant, is_onnx
from openwork.qdq.affine import quantize_weight, weight_scales

Tables = Literal["float", "int8"]
"""How tables are stored."""

_AXIS = "axis"


def check_tables(tables: str) -> None:
    """Raise ValueError for a way to store tables that is none."""
    if tables not in get_args(Tables):
        raise ValueError(f'Tables are stored as "float" or "int8", but not as {tables!r}.')


def quantize_tables(model: ir.Model) -> list[str]:
    """Store every float table [V, H] that nodes look rows up in, in loops too, as INT8, where nothing else
    reads more of it than the shape.

    Each row has the scale of its largest magnitude. Gives the tables' names; raises ValueError for one
    that holds NaN or infinity.
    """
    found = [value for value in model.graph.initializers.values() if _is_table(value)]
    for value in found:
        _quantize(model.graph, value)
    return [str(value.name) for value in found]


def _is_table(value: ir.Value) -> bool:
    array = constant(value)
    if array is None or array.ndim != 2 or array.dtype != np.float32 or not array.size:
        return False
    uses = list(value.uses())
    rows = [use for use in uses if not is_onnx(use.node, "Shape")]
    return bool(rows) and not value.is_graph_output() and all(_looks_up(use.node, use.idx) for use in rows)


def _looks_up(node: ir.Node, place: int) -> bool:
    return is_onnx(node, "Gather") and place == 0 and attributes(node).get(_AXIS, 0) % 2 == 0


def _quantize(graph: ir.Graph, value: ir.Value) -> None:
    array = constant(value)
    assert array is not None
    scales = weight_scales(array, str(value.name))
    stored = add_initializer(graph, f"{value.name}:rows", quantize_weight(array, scales))
    unit = add_initializer(graph, f"{value.name}:row_scales", scales)
    node = ir.node("DequantizeLinear", [stored, unit], {_AXIS: 0}, name=f"{value.name}:dequantized")
    made = node.outputs[0]
    made.name, made.shape, made.type = f"{node.name}:0", value.shape, ir.TensorType(ir.DataType.FLOAT)
    first = next(iter(graph), None)
    assert first is not None  # a table is read by one
    graph.insert_before(first, node)
    value.replace_all_uses_with(made)
    del graph.initializers[str(value.name)]
