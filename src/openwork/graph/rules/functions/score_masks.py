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


def _by_query(states: Array, batch: int, length: int) -> Array | str:
    """A mask of scores [batch, heads, queries, keys] without its heads, [batch, queries or 1, keys]."""
    heads = states.shape[-3] if states.ndim >= 3 else 1
    queries = states.shape[-2] if states.ndim >= 2 else 1
    try:
        full = np.broadcast_to(states, (batch, heads, queries, length))
    except ValueError:
        return f"is {list(states.shape)} for scores of [{batch}, heads, {queries}, {length}]"
    return "differs from head to head" if (full != full[:, :1]).any() else full[:, 0]


def _of_keys(states: Array, batch: int, length: int) -> Array | str:
    """What a mask of scores says of each key, if it says it to all queries."""
    full = _by_query(states, batch, length)
    if isinstance(full, str):
        return full
    return "differs from query to query" if (full != full[:, :1]).any() else full[:, 0]


def _hidden(queries: int, keys: int) -> Array:
    """What a causal mask hides of [queries, keys]: the keys behind each query, where the last ones meet."""
    return np.arange(keys) > np.arange(queries)[:, None] + (keys - queries)


def _of_seen_keys(states: Array, batch: int, length: int) -> Array | str:
    """What a causal mask says of each key to the queries that may see it."""
    full = _by_query(states, batch, length)
    if isinstance(full, str):
        return full
    keys = full[:, -1]
    expected = np.where(_hidden(full.shape[1], length), DROPPED, keys[:, None])
    return "differs from query to query, and is not causal" if (full != expected).any() else keys


def _use(states: Callable[[Array], Array], of_keys: Callable[[Array, int, int], Array | str]) -> MaskUse:
    return MaskUse(
        states,
        of_keys,
        lambda batch, length: (batch, 1, length, length),
        f"adds other numbers than 0 for kept keys and at most {LOWEST_KEPT:.0f} for dropped ones",
    )


@dataclass(frozen=True)
class _Uses:
    """A kind of mask, told to all queries alike, and causally."""

    plain: MaskUse
    causal: MaskUse


def _uses(states: Callable[[Array], Array]) -> _Uses:
    return _Uses(_use(states, _of_keys), _use(states, _of_seen_keys))


_ADDITIVE, _BOOLEAN, _INVERTED = _uses(_additive), _uses(_boolean), _uses(_inverted)


@dataclass(frozen=True)
class Mask:
    """What is masked: the keys that a mask drops (None: none), and whether queries see what is before them.

    reason: why it is no such mask, as the end of a sentence that begins "its mask"; "" where it is one.
    """

    keys: KeyMask | None = None
    causal: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Masked:
    """Scores, what masks them, and what it is where that is no mask: numbers to add, or the condition and the
    number that is chosen in the place of the scores; `keeps`: the score stays where the condition is true."""

    scores: ir.Value
    mask: Mask
    bias: ir.Value | None = None
    chosen: tuple[ir.Value, ir.Value] | None = None
    keeps: bool = True


def _is_low(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and bool(np.all(array <= LOWEST_KEPT))


def masked_where(node: ir.Node) -> Masked | None:
    """Where(condition, scores, low) or Where(condition, low, scores)."""
    condition, first, second = (needed(node, index) for index in range(3))
    for scores, low, uses in ((first, second, _BOOLEAN), (second, first, _INVERTED)):
        if _is_low(low):
            mask = _mask_of(condition, uses)
            return Masked(scores, mask, None, (condition, low), scores is first)
    return None


def masked_add(node: ir.Node, leads: Callable[[ir.Value], bool]) -> Masked | None:
    """Scores + bias; there is no mask where the bias is 0 everywhere.

    leads: whether a value is made of the product of queries and keys by what may stand between.
    """
    a, b = needed(node, 0), needed(node, 1)
    for scores, bias in ((a, b), (b, a)):
        if leads(scores):
            return Masked(scores, _mask_of(bias, _ADDITIVE), bias)
    return None


def _mask_of(value: ir.Value, uses: _Uses) -> Mask:
    found = cone(value)
    if found is None:
        return Mask(reason="is computed from more than inputs and shapes")
    if not found.sources:
        return _fixed(found, uses)
    plain = key_mask(value, uses.plain)
    if not isinstance(plain, str):
        return Mask(plain)
    causal = key_mask(value, uses.causal)
    return Mask(reason=plain) if isinstance(causal, str) else Mask(causal, True)


def _fixed(found: Cone, uses: _Uses) -> Mask:
    """What depends on shapes alone: nothing where it keeps every key, a causal mask, or why it is none."""
    try:
        states = [uses.plain.states(np.asarray(y)) for *_, y in evaluations(found)]
    except ModelError as error:
        return Mask(reason=f"cannot be computed: {error}")
    if all(bool((y == KEPT).all()) for y in states):
        return Mask()
    if all(y.ndim > 1 and bool((y == ~_hidden(*y.shape[-2:])).all()) for y in states):
        return Mask(causal=True)
    if any(bool((y == NEITHER).any()) for y in states):
        return Mask(reason="is a bias that is the same for all inputs")
    differs = any(y.ndim > 1 and bool((y != y[..., :1, :]).any()) for y in states)
    return Mask(reason="differs from query to query" if differs else "drops the same keys for all inputs")
