"""BatchNormalization as the values that its folding needs (`qdq/batch_norm.py`)."""

from __future__ import annotations

import onnx_ir as ir

from openwork.graph.model import constant, operand
from openwork.graph.slots import is_read
from openwork.qdq.batch_norm import BatchNorm

EPSILON = 1e-5
"""What ONNX takes where the attribute is absent."""


def batch_norm(node: ir.Node) -> BatchNorm | None:
    """The statistics of a BatchNormalization; None where they are computed, or change as it runs."""
    gamma, beta, mean, variance = (constant(operand(node, place)) for place in range(1, 5))
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    if node.attributes.get_int("training_mode", 0) or any(is_read(v) for v in node.outputs[1:]):
        return None
    return BatchNorm(gamma, beta, mean, variance, node.attributes.get_float("epsilon", EPSILON))
