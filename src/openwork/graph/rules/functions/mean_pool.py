"""The mean of the hidden states over the tokens that the mask keeps, into MeanPool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.model import Array, attributes, constant, dims, make, needed, operand, producer
from openwork.graph.probe import MaskUse, probe_mask
from openwork.graph.rewrite import Replacement, Rule


@dataclass(frozen=True)
class _Pool:
    node: ir.Node
    x: ir.Value
    weights: ir.Value | None
    divisor: ir.Value | None
    mean: bool
    keepdims: bool


def _axis_one(node: ir.Node) -> bool:
    found, given = attributes(node), constant(operand(node, 1))
    axes = found.get("axes") if given is None else given.reshape(-1).tolist()
    return axes is not None and [axis % 3 for axis in axes] == [1]


def _rank(value: ir.Value) -> int:
    shape = dims(value)
    return -1 if shape is None else len(shape)


def _reduction(value: ir.Value) -> ir.Node | None:
    node = producer(value, "ReduceSum", "ReduceMean")
    return node if node is not None and _rank(needed(node, 0)) == 3 and _axis_one(node) else None


def _is_hidden(value: ir.Value) -> bool:
    """Whether the value is what is pooled: computed from more than masks and constants."""
    return _rank(value) == 3 and _weights_mask(value) is None


def is_weights(mask: Array, actual: Array) -> bool:
    """Whether `actual` [B, L, 1 or H] is the mask as numbers."""
    if actual.ndim != 3 or actual.shape[:2] != mask.shape:
        return False
    return bool(np.array_equal(actual, np.broadcast_to(mask[:, :, None], actual.shape)))


def _weights_mask(value: ir.Value) -> ir.Value | None:
    return probe_mask(value, MaskUse(is_weights, lambda batch, length: (batch, length, 1)))


def _match(node: ir.Node) -> _Pool | None:
    total = _reduction(needed(node, 0))
    if total is None:
        return None
    weighted = producer(needed(total, 0), "Mul")
    if weighted is None:
        return None
    x, weights = needed(weighted, 0), needed(weighted, 1)
    if not _is_hidden(x):
        x, weights = weights, x
    keep = bool(attributes(total).get("keepdims", 1))
    return _Pool(node, x, weights, needed(node, 1), total.op_type == "ReduceMean", keep)


def _check(found: _Pool) -> str | None:
    if found.weights is None or found.divisor is None:
        return "it averages over all positions; MeanPool averages over those that a mask keeps"
    if found.keepdims or _rank(found.node.outputs[0]) != 2:
        return "it keeps the axis that it sums over"
    if found.x.dtype != ir.DataType.FLOAT or _rank(found.x) != 3:
        return "what it averages is not float32 [batch, length, channels]"
    mask = _weights_mask(found.weights)
    if mask is None:
        return "its weights are not an INT64 mask input [batch, length] as numbers"
    if _divisor_mask(found) is not mask:
        return "its divisor is not the number of positions that the same mask keeps"
    return None


def _divisor_mask(found: _Pool) -> ir.Value | None:
    def counts(mask: Array, actual: Array) -> bool:
        count = mask.sum(1).astype(np.float64) / (mask.shape[1] if found.mean else 1)
        if actual.ndim != 2 or actual.shape[0] != mask.shape[0]:
            return False
        # Where nothing is kept the sum is 0, and 0 over any number is MeanPool's 0.
        kept = count > 0
        return bool(np.allclose(actual[kept], count[kept, None], rtol=1e-6, atol=0))

    use = MaskUse(counts, lambda batch, length: (batch, 1))
    return None if found.divisor is None else probe_mask(found.divisor, use)


def _replace(found: _Pool) -> Replacement:
    mask = _weights_mask(found.weights) if found.weights is not None else None
    made = make("MeanPool", [found.x, mask], {}, found.node.name or "")
    return Replacement([made], [(found.node.outputs[0], made.outputs[0])])


MEAN_POOL = Rule("mean pool", frozenset({"Div"}), _match, _check, _replace)


def _match_plain(node: ir.Node) -> _Pool | None:
    total = _reduction(node.outputs[0])
    if (
        total is None
        or needed(node, 0).dtype != ir.DataType.FLOAT
        or _weights_mask(needed(node, 0)) is not None
    ):
        return None
    if producer(needed(node, 0), "Mul") is not None:
        return None
    return _Pool(node, needed(node, 0), None, None, True, False)


PLAIN_MEAN = Rule("mean over all positions", frozenset({"ReduceMean"}), _match_plain, _check, _replace)
