"""What nodes make of bytes: the graph itself is asked, so that a table holds what it computes, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from openwork.engine.operators import DOMAIN
from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import Array, ModelError, attributes, constant, is_openwork
from openwork.graph.numerics.binary32 import quantize_exactly
from openwork.graph.reference import compute

BYTES = 256


def _made(node: ir.Node, given: list[Array | None]) -> Sequence[Array | None]:
    """What a node makes; a Quantize divides, as the node of ONNX that it stands for."""
    if is_openwork(node, "Quantize"):
        numbers, x = attributes(node), given[0]
        assert x is not None
        return [quantize_exactly(x, numbers["y_scale"], numbers["y_zero_point"])]
    return compute(node, given) if node.domain == DOMAIN else run_onnx_node(node, given)


def outcome(nodes: Sequence[ir.Node], source: ir.Value, content: Array) -> Array | None:
    """The first output of the last of some nodes, makers first, for this content of the one computed value
    that they read; None where it cannot be computed."""
    known: dict[ir.Value, Array | None] = {source: content}
    try:
        for node in nodes:
            given = [None if v is None else known.get(v, constant(v)) for v in node.inputs]
            made = _made(node, given)
            known.update(zip(node.outputs, made, strict=False))
    except ModelError:
        return None
    return known.get(nodes[-1].outputs[0])
