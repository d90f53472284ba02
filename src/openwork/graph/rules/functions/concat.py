"""Values side by side: of floats as they are, of integers through a table where their scales differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    attributes,
    constant,
    dims,
    make,
    native_producer,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.numerics.binary32 import quantize_exactly
from openwork.graph.rewrite import Replacement, Rule, home


def _axis(node: ir.Node) -> int | str:
    """The axis counted from the front, or why there is none."""
    shape, axis = dims(node.outputs[0]), int(attributes(node)["axis"])
    if shape is None:
        return "its rank is not known"
    axis %= len(shape)
    sizes = [(dims(value) or (None,) * len(shape))[axis] for value in node.inputs if value is not None]
    if not all(isinstance(size, int) for size in sizes):
        return f"its sizes along the axis are {sizes}; they must be fixed"
    return axis


def _check_values(node: ir.Node) -> str | None:
    if any(constant(value) is not None for value in node.inputs):
        return "one of its operands is a constant"
    axis = _axis(node)
    return axis if isinstance(axis, str) else None


@dataclass(frozen=True)
class _Integers:
    """A Quantize of a Concat of dequantized integers: these, and what each of their values becomes."""

    quantize: ir.Node
    concat: ir.Node
    values: tuple[ir.Value, ...]
    tables: Array


BYTES = 256


def requantized(read: dict[str, Any], made: dict[str, Any]) -> Array:
    """What every integer becomes on the way through the float that it stands for, u8 [256].

    read: the numbers of the Dequantize; made: those of the Quantize.
    """
    integers = np.arange(BYTES, dtype=np.float32) - np.float32(read["x_zero_point"])
    return quantize_exactly(integers * np.float32(read["x_scale"]), made["y_scale"], made["y_zero_point"])


def _match_integers(node: ir.Node) -> _Integers | None:
    concat = producer(needed(node, 0), "Concat")
    values, tables = [], []
    for value in concat.inputs if concat is not None else ():
        reader = native_producer(value, "Dequantize")
        if reader is None:
            return None
        values.append(needed(reader, 0))
        tables.append(requantized(attributes(reader), attributes(node)))
    return None if concat is None else _Integers(node, concat, tuple(values), np.stack(tables))


def stored_tables(node: ir.Node, tables: Array) -> ir.Value | None:
    """A row [256] for each piece in the node's graph; None where all leave every integer as it is."""
    if np.all(tables == np.arange(BYTES)):
        return None
    return add_initializer(home(node), f"{node.name or ''}.tables", tables)


def _check_integers(found: _Integers) -> str | None:
    if only_consumer(found.concat.outputs[0]) is None:
        return "its float result is read by other nodes too"
    return _check_values(found.concat)


def _replace_integers(found: _Integers) -> Replacement:
    tables = stored_tables(found.concat, found.tables)
    made = make("Concat", [tables, *found.values], {"axis": _axis(found.concat)}, found.concat.name or "")
    return Replacement([made], [(found.quantize.outputs[0], made.outputs[0])])


CONCAT_INTEGERS = Rule(
    "concat of integers",
    frozenset({"Quantize"}),
    _match_integers,
    _check_integers,
    _replace_integers,
    domain=DOMAIN,
)


def _match(node: ir.Node) -> ir.Node | None:
    floats = all(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)
    return node if floats else None


def _replace(node: ir.Node) -> Replacement:
    made = make("Concat", [None, *node.inputs], {"axis": _axis(node)}, node.name or "")
    return Replacement([made], [(node.outputs[0], made.outputs[0])])


CONCAT = Rule("concat", frozenset({"Concat"}), _match, _check_values, _replace)
