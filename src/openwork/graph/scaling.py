"""Multiplications and divisions by one number, in the spellings of exporters."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from openwork.graph.model import ModelError, constant, needed
from openwork.graph.operands import split_constant
from openwork.graph.probe import cone, evaluations


def scaling_of(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(x, factor) of x * factor or x / divisor, the number a constant or computed from shapes alone."""
    split = split_constant(node)
    if split is None or split[1].size != 1 or (node.op_type == "Div" and constant(needed(node, 1)) is None):
        return _computed_scaling(node)
    number = float(split[1].reshape(()))
    return split[0], number if node.op_type == "Mul" else 1 / number


def _computed_scaling(node: ir.Node) -> tuple[ir.Value, float] | None:
    pairs = [(needed(node, 0), needed(node, 1))]
    if node.op_type == "Mul":
        pairs.append((needed(node, 1), needed(node, 0)))
    for value, other in pairs:
        found = cone(other)
        if found is None or found.sources:
            continue
        try:
            results = [np.asarray(y) for *_, y in evaluations(found)]
        except ModelError:
            continue
        if all(y.size == 1 and y.reshape(()) == results[0].reshape(()) for y in results):
            number = float(results[0].reshape(()))
            return value, number if node.op_type == "Mul" else 1 / number
    return None
