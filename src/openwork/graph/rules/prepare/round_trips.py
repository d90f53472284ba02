"""Round trips (a Quantize and its Dequantize) that say nothing new, or that stand behind moved axes.

All of these changes are exact. quantize(dequantize(q)) = q (docs/arithmetic.md), so what already lies on the
grid of a quantizer needs no second rounding on it; and a quantizer has one scale for the whole tensor, so it
may as well come before axes are moved, where the product that makes the value can take it, or after they are
moved, where attention ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    Array,
    constant,
    consumers,
    is_onnx,
    make,
    native_producer,
    needed,
    only_consumer,
    producer,
)
from openwork.graph.numerics import binary32
from openwork.graph.rewrite import Replacement, Rule, home, never
from openwork.graph.round_trip import Grid, RoundTrip, grid_of, round_trip
from openwork.graph.rules.prepare.quantizers import LARGEST_SCALE, SMALLEST_SCALE
from openwork.graph.scaling import scaling_of

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
KEEPS_GRID = (*MOVES, "Expand", "Slice", "Gather", "Relu", "MaxPool")
"""Elements of the first operand, unchanged; 0, which lies on every grid; a largest element is an element."""


def _lies_on(value: ir.Value, grid: Grid) -> bool:
    """Whether every element is dequantized from this grid."""
    while (node := producer(value, *KEEPS_GRID)) is not None:
        value = needed(node, 0)
    made = native_producer(value, "Dequantize")
    return made is not None and grid_of(made) == grid


def _match_again(node: ir.Node) -> RoundTrip | None:
    found = round_trip(node)
    return found if found is not None and _lies_on(found.source, found.grid) else None


def _check_again(found: RoundTrip) -> str | None:
    source, result = found.source, found.dequantize.outputs[0]
    if result.is_graph_output() and (source.is_graph_output() or source.producer() is None):
        return "it makes an output of the graph out of another output"
    return None


def _replace_again(found: RoundTrip) -> Replacement:
    return Replacement((), [(found.dequantize.outputs[0], found.source)])


ROUNDED_ALREADY = Rule(
    "round once on one grid",
    frozenset({"Dequantize"}),
    _match_again,
    _check_again,
    _replace_again,
    domain=DOMAIN,
)


def _match_requantized(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """A Quantize, and the integers that its input was dequantized from on the same grid."""
    made = native_producer(needed(node, 0), "Dequantize")
    return (node, needed(made, 0)) if made is not None and grid_of(made) == grid_of(node) else None


def _check_requantized(found: tuple[ir.Node, ir.Value]) -> str | None:
    node, integers = found
    if node.outputs[0].is_graph_output() and (integers.is_graph_output() or integers.producer() is None):
        return "it makes an output of the graph out of an input or of another output"
    return None


def _replace_requantized(found: tuple[ir.Node, ir.Value]) -> Replacement:
    node, integers = found
    return Replacement((), [(node.outputs[0], integers)])


REQUANTIZED = Rule(
    "quantize what was dequantized",
    frozenset({"Quantize"}),
    _match_requantized,
    _check_requantized,
    _replace_requantized,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Behind:
    """A round trip behind a node that moves axes, or that multiplies by one positive number."""

    trip: RoundTrip
    node: ir.Node
    source: ir.Value
    factor: float

    @property
    def scale(self) -> float:
        """The scale before the factor: quantize(x * factor, scale) = quantize(x, scale / factor)."""
        return float(np.float32(self.trip.grid[0] / self.factor))


def _feeds_product(value: ir.Value, depth: int = 8) -> bool:
    """Whether the value is read by products of two computed values alone, through moves and scales."""
    readers = consumers(value)
    return bool(readers) and not value.is_graph_output() and all(_leads(n, value, depth) for n in readers)


def _is_computed(product: ir.Node) -> bool:
    return all(constant(operand) is None for operand in product.inputs)


def _leads(node: ir.Node, value: ir.Value, depth: int) -> bool:
    if is_onnx(node, "MatMul"):
        return _is_computed(node)
    if depth == 0 or node.inputs[0] is not value:
        return False
    passes = is_onnx(node, *MOVES) or (is_onnx(node, "Mul", "Div") and scaling_of(node) is not None)
    return passes and _feeds_product(node.outputs[0], depth - 1)


def _match_behind(dequantize: ir.Node) -> _Behind | None:
    trip = round_trip(dequantize)
    node = producer(trip.source, *MOVES, "Mul", "Div") if trip is not None else None
    if trip is None or node is None or not _feeds_product(dequantize.outputs[0]):
        return None
    split = scaling_of(node) if node.op_type in ("Mul", "Div") else (needed(node, 0), 1.0)
    if split is None or split[1] <= 0 or constant(split[0]) is not None:
        return None
    return _Behind(trip, node, *split)


def _check_behind(found: _Behind) -> str | None:
    if found.source.dtype != ir.DataType.FLOAT:
        return "what it rounds is not float32"
    if not SMALLEST_SCALE <= found.scale <= LARGEST_SCALE:
        return "its scale before the factor leaves the range of scales"
    return None


def _again(node: ir.Node, inputs: Sequence[ir.Value | None], like: ir.Value) -> ir.Node:
    """The same node on other inputs, its result of the shape and type of another value."""
    made = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=node.name)
    made.outputs[0].shape, made.outputs[0].type = like.shape, like.type
    return made


def _moved(trip: RoundTrip, source: ir.Value, grid: Grid) -> RoundTrip:
    """A round trip of the same names on another value and grid."""
    scale, point = grid
    values = {"y_scale": scale, "y_zero_point": point}
    quantize = make("Quantize", [source], values, trip.quantize.name or "")
    values = {"x_scale": scale, "x_zero_point": point}
    return RoundTrip(quantize, make("Dequantize", quantize.outputs, values, trip.dequantize.name or ""))


def _replace_behind(found: _Behind) -> Replacement:
    """The round trip on what the node reads, then the node again; a factor goes into the scale."""
    trip, old = found.trip, found.trip.dequantize.outputs[0]
    moved = _moved(trip, found.source, (found.scale, trip.grid[1]))
    rounded = moved.dequantize.outputs[0]
    again = _again(found.node, [rounded if v is found.source else v for v in found.node.inputs], old)
    return Replacement([moved.quantize, moved.dequantize, again], [(old, again.outputs[0])])


BEFORE_MOVES = Rule(
    "round before the axes move",
    frozenset({"Dequantize"}),
    _match_behind,
    _check_behind,
    _replace_behind,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Before:
    """A round trip of a product of two computed values, and the node behind it that moves axes."""

    trip: RoundTrip
    node: ir.Node


def _is_moved_product(value: ir.Value) -> bool:
    """Whether the value is a product of two computed values, its axes moved or not."""
    while (node := producer(value, *MOVES)) is not None:
        value = needed(node, 0)
    product = producer(value, "MatMul")
    return product is not None and _is_computed(product)


def _match_before(dequantize: ir.Node) -> _Before | None:
    trip = round_trip(dequantize)
    move = only_consumer(dequantize.outputs[0])
    if trip is None or not _is_moved_product(trip.source):
        return None
    if not is_onnx(move, *MOVES) or move is None or move.inputs[0] is not dequantize.outputs[0]:
        return None
    return None if _feeds_product(dequantize.outputs[0]) else _Before(trip, move)


def _check_before(found: _Before) -> str | None:
    if only_consumer(found.trip.quantize.outputs[0]) is None:
        return "the integers of the product are read by other nodes too"
    return None


def _replace_before(found: _Before) -> Replacement:
    """The node that moves axes first, then the round trip."""
    trip, node, old = found.trip, found.node, found.node.outputs[0]
    inputs = [trip.source, *node.inputs[1:]]
    first = _again(node, inputs, old)
    moved = _moved(trip, first.outputs[0], trip.grid)
    made = [first, moved.quantize, moved.dequantize]
    return Replacement(made, [(old, moved.dequantize.outputs[0])], before=node)


AFTER_MOVES = Rule(
    "round after the axes move",
    frozenset({"Dequantize"}),
    _match_before,
    _check_before,
    _replace_before,
    domain=DOMAIN,
)


@dataclass(frozen=True)
class _Rows:
    """A round trip of rows of a constant table."""

    trip: RoundTrip
    gather: ir.Node
    table: Array


def _match_rows(dequantize: ir.Node) -> _Rows | None:
    trip = round_trip(dequantize)
    gather = producer(trip.source, "Gather") if trip is not None else None
    table = constant(needed(gather, 0)) if gather is not None else None
    if trip is None or gather is None or table is None or table.dtype != np.float32:
        return None
    return _Rows(trip, gather, table)


def _replace_rows(found: _Rows) -> Replacement:
    """The rows of the rounded table."""
    scale, point = found.trip.grid
    centred = binary32.quantize(found.table, scale, point).astype(np.float32) - np.float32(point)
    name = f"{needed(found.gather, 0).name}.rounded"
    table = add_initializer(home(found.gather), name, centred * np.float32(scale))
    old = found.trip.dequantize.outputs[0]
    made = _again(found.gather, [table, *found.gather.inputs[1:]], old)
    return Replacement([made], [(old, made.outputs[0])])


ROUNDED_ROWS = Rule(
    "round a table, not its rows", frozenset({"Dequantize"}), _match_rows, never, _replace_rows, domain=DOMAIN
)
