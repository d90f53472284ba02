"""What stands around a node: operators of openwork, or nodes of ONNX."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import constant, consumers, is_onnx, is_openwork

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Operators through which a result is still read by what stands behind them: they follow, one by one."""
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
"""The same of those that have one number beside what they read."""


def stands_among_native(node: ir.Node) -> bool:
    """Whether all that a node reads is made by operators of openwork or fed, and one of them, or nobody but
    the graph, reads each of its results; nodes that only move elements, or reckon with one number, may stand
    in between."""
    # What the shape of a view is computed from goes with it: a native one knows its sizes.
    given = node.inputs[:1] if is_onnx(node, *VIEWS) else node.inputs
    read = [value for value in given if value is not None and constant(value) is None]
    made = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    return all(map(_given, read)) and all(map(_taken, made))


def _given(value: ir.Value) -> bool:
    maker = value.producer()
    while (passed := _passed(maker)) is not None:
        maker = passed.producer()
    return maker is None or is_openwork(maker)


def _taken(value: ir.Value) -> bool:
    readers = consumers(value)
    if value.is_graph_output() or any(map(is_openwork, readers)):
        return True
    return any(_passed(reader) is value and _taken(reader.outputs[0]) for reader in readers)


def _passed(node: ir.Node | None) -> ir.Value | None:
    """What a node reads of which its result has the elements, moved or each with one number; else None."""
    if node is None or not node.inputs:
        return None
    if is_onnx(node, *VIEWS):
        return node.inputs[0]
    numbers = [constant(value) for value in node.inputs]
    known = [array for array in numbers if array is not None]
    if not is_onnx(node, *ARITHMETIC) or len(known) != 1 or known[0].size != 1:
        return None
    index = 0 if numbers[0] is None else 1
    # What divides a number has no native step.
    return None if node.op_type == "Div" and index else node.inputs[index]
