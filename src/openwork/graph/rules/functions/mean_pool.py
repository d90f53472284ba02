"""The mean of the hidden states over the tokens that the mask keeps, into MeanPool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import NEITHER, KeyMask, MaskUse, follows, key_mask
from openwork.graph.model import Array, attributes, constant, dims, make, needed, operand, producer
from openwork.graph.rewrite import Replacement, Rule, home
from openwork.graph.rules.functions.native_mask import native_mask


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


def _weights(actual: Array) -> Array:
    """1 keeps a position, 0 drops it."""
    return np.where((actual == 0) | (actual == 1), actual, NEITHER).astype(np.int8)


def _of_positions(states: Array, batch: int, length: int) -> Array | str:
    """What weights [batch, length, 1 or channels] say of each position."""
    if states.ndim != 3 or states.shape[:2] != (batch, length):
        return f"is {list(states.shape)} for states of [{batch}, {length}, channels]"
    if (states != states[:, :, :1]).any():
        return "differs from channel to channel"
    return states[:, :, 0]


_WEIGHTS = MaskUse(
    _weights,
    _of_positions,
    lambda batch, length: (batch, length, 1),
    "weighs positions by other numbers than 0 and 1",
)


def _weights_mask(value: ir.Value) -> KeyMask | str | None:
    return key_mask(value, _WEIGHTS)


def _sides(a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What is pooled and its weights: those are a mask, or what is made of inputs alone."""
    masks = {value: _weights_mask(value) for value in (b, a)}
    computed = [
        value for value, mask in masks.items() if isinstance(mask, str) and not value.is_graph_input()
    ]
    weights = next((value for value, mask in masks.items() if isinstance(mask, KeyMask)), (*computed, b)[0])
    return (b, a) if weights is a else (a, b)


def _match(node: ir.Node) -> _Pool | None:
    total = _reduction(needed(node, 0))
    if total is None:
        return None
    weighted = producer(needed(total, 0), "Mul")
    if weighted is None:
        return None
    x, weights = _sides(needed(weighted, 0), needed(weighted, 1))
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
    if not isinstance(mask, KeyMask):
        return f"its mask {mask}" if mask else "its weights are not a mask input [batch, length] as numbers"
    if not _counts(found, mask):
        return "its divisor is not the number of positions that the same mask keeps"
    return None


def _counts(found: _Pool, mask: KeyMask) -> bool:
    """Whether the divisor is the number of kept positions, or with a mean their share."""

    def counts(kept: Array, actual: Array) -> bool:
        count = kept.sum(1).astype(np.float64) / (kept.shape[1] if found.mean else 1)
        if actual.ndim != 2 or actual.shape[0] != kept.shape[0]:
            return False
        # Where nothing is kept the sum is 0, and 0 over any number is MeanPool's 0.
        some = count > 0
        return bool(np.allclose(actual[some], count[some, None], rtol=1e-6, atol=0))

    return found.divisor is not None and follows(found.divisor, mask, counts)


def _replace(found: _Pool) -> Replacement:
    mask = None if found.weights is None else _weights_mask(found.weights)
    assert isinstance(mask, KeyMask)
    value, nodes = native_mask(home(found.node), mask, found.node)
    made = make("MeanPool", [found.x, value], {}, found.node.name or "")
    return Replacement([*nodes, made], [(found.node.outputs[0], made.outputs[0])])


MEAN_POOL = Rule("mean pool", frozenset({"Div"}), _match, _check, _replace)


def _match_plain(node: ir.Node) -> _Pool | None:
    total = _reduction(node.outputs[0])
    if (
        total is None
        or needed(node, 0).dtype != ir.DataType.FLOAT
        or isinstance(_weights_mask(needed(node, 0)), KeyMask)
    ):
        return None
    if producer(needed(node, 0), "Mul") is not None:
        return None
    return _Pool(node, needed(node, 0), None, None, True, False)


PLAIN_MEAN = Rule("mean over all positions", frozenset({"ReduceMean"}), _match_plain, _check, _replace)
