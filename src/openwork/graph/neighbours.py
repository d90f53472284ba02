"""What stands around a node: operators of openwork, or nodes of ONNX."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import constant, consumers, is_onnx, is_openwork

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Operators through which a result is still read by what stands behind them: they follow, one by one."""


def stands_among_native(node: ir.Node) -> bool:
    """Whether all that a node reads is made by operators of openwork or fed, and one of them, or nobody but
    the graph, reads each of its results; nodes that only move elements may stand in between."""
    read = [value for value in node.inputs if value is not None and constant(value) is None]
    made = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    return all(map(_given, read)) and all(map(_taken, made))


def _given(value: ir.Value) -> bool:
    maker = value.producer()
    while is_onnx(maker, *VIEWS) and maker is not None and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    return maker is None or is_openwork(maker)


def _taken(value: ir.Value) -> bool:
    readers = consumers(value)
    if value.is_graph_output() or any(map(is_openwork, readers)):
        return True
    return any(is_onnx(reader, *VIEWS) and _taken(reader.outputs[0]) for reader in readers)
