"""Masks of the scores of attention, added to them or chosen by Where: key masks, or why they are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from openwork.graph.key_masks import DROPPED, KEPT, NEITHER, KeyMask, MaskUse, key_mask
from openwork.graph.model import Array, ModelError, constant, needed
from openwork.graph.probe import Cone, cone, evaluations

LOWEST_KEPT = -1e4
"""An additive mask this low leaves exp(s) = 0 for dropped keys, for scores of sane size."""


def _additive(actual: Array) -> Array:
    """0 for kept keys and very low for the others."""
    dropped = np.where(actual <= LOWEST_KEPT, DROPPED, NEITHER)
    return np.where(actual == 0, KEPT, dropped).astype(np.int8)


def _boolean(actual: Array) -> Array:
    return np.where(actual.astype(bool), KEPT, DROPPED).astype(np.int8)


def _inverted(actual: Array) -> Array:
    return np.where(actual.astype(bool), DROPPED, KEPT).astype(np.int8)


def _of_keys(states: Array, batch: int, length: int) -> Array | str:
    """What a mask of scores [batch, heads, queries, keys] says of each key, if it says it to all queries."""
    heads = states.shape[-3] if states.ndim >= 3 else 1
    try:
        full = np.broadcast_to(states, (batch, heads, length, length))
    except ValueError:
        return f"is {list(states.shape)} for scores of [{batch}, heads, {length}, {length}]"
    if (full != full[:, :, :1]).any():
        return "differs from query to query"
    if (full != full[:, :1]).any():
        return "differs from head to head"
    return full[:, 0, 0]


def _use(states: Callable[[Array], Array]) -> MaskUse:
    return MaskUse(
        states,
        _of_keys,
        lambda batch, length: (batch, 1, length, length),
        f"adds other numbers than 0 for kept keys and at most {LOWEST_KEPT:.0f} for dropped ones",
    )


_ADDITIVE, _BOOLEAN, _INVERTED = _use(_additive), _use(_boolean), _use(_inverted)


@dataclass(frozen=True)
class Masked:
    """Scores, and what masks them: nothing, a key mask, or why that is none."""

    scores: ir.Value
    mask: KeyMask | str | None


def _is_low(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and bool(np.all(array <= LOWEST_KEPT))


def masked_where(node: ir.Node) -> Masked | None:
    """Where(condition, scores, low) or Where(condition, low, scores)."""
    condition, first, second = (needed(node, index) for index in range(3))
    for scores, low, use in ((first, second, _BOOLEAN), (second, first, _INVERTED)):
        if _is_low(low) and (found := cone(condition)) is not None:
            return Masked(scores, key_mask(condition, use) if found.sources else _fixed(found, use))
    return None


def masked_add(node: ir.Node) -> Masked | None:
    """Scores + bias; there is no mask where the bias is 0 everywhere."""
    a, b = needed(node, 0), needed(node, 1)
    masks = [Masked(scores, _bias_mask(bias)) for scores, bias in ((a, b), (b, a))]
    return next((found for found in masks if not isinstance(found.mask, str)), None) or _refused(
        masks, (b, a)
    )


def _refused(masks: list[Masked], biases: tuple[ir.Value, ...]) -> Masked | None:
    """Why neither operand is a mask: the bias is made of inputs and shapes, not a product of two values."""
    cones = [cone(bias) for bias in biases]
    made = (mask for mask, found in zip(masks, cones, strict=True) if found and not _multiplies(found))
    return next(made, None)


def _multiplies(found: Cone) -> bool:
    products = (node for node in found.nodes if node.op_type == "MatMul")
    return any(all(constant(value) is None for value in node.inputs) for node in products)


def _bias_mask(bias: ir.Value) -> KeyMask | str | None:
    """The mask that a bias is, None for one that is 0 everywhere, or why it is no mask."""
    found = cone(bias)
    if found is None:
        return "is computed from more than inputs and shapes"
    return key_mask(bias, _ADDITIVE) if found.sources else _fixed(found, _ADDITIVE)


def _fixed(found: Cone, use: MaskUse) -> str | None:
    """Why what depends on shapes alone is no key mask; None where it keeps every key."""
    try:
        states = [use.states(np.asarray(y)) for *_, y in evaluations(found)]
    except ModelError as error:
        return f"cannot be computed: {error}"
    if all(bool((y == KEPT).all()) for y in states):
        return None
    if any(bool((y == NEITHER).any()) for y in states):
        return "is a bias that is the same for all inputs"
    differs = any(y.ndim > 1 and bool((y != y[..., :1, :]).any()) for y in states)
    return "differs from query to query" if differs else "drops the same keys for all inputs"
