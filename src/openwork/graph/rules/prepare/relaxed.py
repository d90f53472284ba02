"""Fewer roundings, where they are asked for: a round trip between float operators leaves its clamps alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.edit import add_initializer
from openwork.graph.model import (
    constant,
    consumers,
    is_onnx,
    native_producer,
    needed,
    producer,
)
from openwork.graph.operands import split_constant
from openwork.graph.ranges import range_of, representable
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.round_trip import RoundTrip, round_trip
from openwork.graph.scaling import scaling_of


def _is_score(value: ir.Value) -> bool:
    """Whether the value is a product of two computed ones, scaled or not: what a softmax reads."""
    node = producer(value, "MatMul", "Mul", "Div")
    if node is None:
        return False
    if node.op_type == "MatMul":
        return constant(needed(node, 1)) is None and constant(needed(node, 0)) is None
    split = scaling_of(node)
    return split is not None and _is_score(split[0])


def _is_weights(trip: RoundTrip) -> bool:
    """Whether the value is a softmax that weighs the values of attention."""
    readers = consumers(trip.dequantize.outputs[0])
    return producer(trip.source, "Softmax") is not None and all(is_onnx(node, "MatMul") for node in readers)


def _is_product(value: ir.Value) -> bool:
    """Whether an integer product makes the value, with a bias or without."""
    split = split_constant(producer(value, "Add"))
    return native_producer(value if split is None else split[0], "Linear") is not None


def _is_residual(trip: RoundTrip) -> bool:
    """Whether all that reads the result adds it to integer products, which take its integers for nothing."""
    result = trip.dequantize.outputs[0]
    readers = consumers(result)
    return bool(readers) and all(
        is_onnx(node, "Add") and any(_is_product(v) for v in node.inputs if v is not None and v is not result)
        for node in readers
    )


def _match(node: ir.Node) -> RoundTrip | None:
    trip = round_trip(node)
    if trip is None or _is_residual(trip):
        return None
    # Attention has no clamps without the roundings inside it.
    if _is_score(trip.source) or (_is_weights(trip) and not _inside(trip)):
        return None
    return trip


def _check(trip: RoundTrip) -> str | None:
    return None if trip.source.dtype == ir.DataType.FLOAT else "what it rounds is not float32"


def _inside(trip: RoundTrip) -> bool:
    low, high = representable(*trip.grid)
    least, most = range_of(trip.source)
    return low <= least and most <= high


def _replace(trip: RoundTrip) -> Replacement:
    (low, high), inside = representable(*trip.grid), _inside(trip)
    old, source = trip.dequantize.outputs[0], trip.source
    where = f"The rounding of {trip.quantize.name!r} to steps of {trip.grid[0]:.6g} is left out"
    if inside and not old.is_graph_output():
        note = f"{where}; its clamps at {low:.6g} and {high:.6g} too, since no value lies beyond them."
        return Replacement((), [(old, source)], note=note)
    graph, name = home(trip.quantize), trip.quantize.name or ""
    named = ((f"{name}.low", low), (f"{name}.high", high))
    ends = [add_initializer(graph, end, np.array(number, np.float32)) for end, number in named]
    clip = ir.Node("", "Clip", [source, *ends], name=name)
    clip.outputs[0].shape, clip.outputs[0].type = source.shape, ir.TensorType(ir.DataType.FLOAT)
    note = f"{where}; its clamps at {low:.6g} and {high:.6g} stay."
    return Replacement([clip], [(old, clip.outputs[0])], note=note)


RELAX = Rule("leave out a rounding", frozenset({"Dequantize"}), _match, _check, _replace, domain=DOMAIN)
