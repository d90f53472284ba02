"""The meaning of every operator of docs/program.md, in NumPy, with the bits that docs/arithmetic.md defines.

Each function takes the operator's inputs in ONNX order (None where an optional one is absent) and its
attributes, and returns its outputs. `run` interprets a whole graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from openwork.engine.operators import ACTIVATIONS, DOMAIN, operator_of_activation
from openwork.graph.evaluate import run_onnx_node
from openwork.graph.model import ModelError, attributes, constant, describe
from openwork.graph.numerics import binary32, fixed_attention
from openwork.graph.numerics.binary32 import Float, dot16, fma, quiet, sum16
from openwork.graph.numerics.epilogue import Channels, apply_activation, finish, store

Array = NDArray[Any]
Attributes = Mapping[str, Any]

def linear(
    x: Array,
    residual: Array | None,
    weight: Array,
    weight_scale: Float,
    bias: Float | None,
    y_multiplier: Float | None,
    a: Attributes,
) -> Array:
    """x u8 [..., K] times weight s8 [N, K], exact, then scaled and stored by the epilogue: [..., N]."""
    # |sum| <= 255 * 127 * K < 2^53, so the binary64 product of integers is exact in any order.
    centred = x.astype(np.float64) - a["x_zero_point"]
    total = (centred @ weight.astype(np.float64).T).astype(np.float32)
    scale = np.float32(a["x_scale"]) * weight_scale
    offset = np.zeros_like(scale) if bias is None else bias
    return finish(total, Channels(scale, offset, y_multiplier), residual, a)


def linear_float(x: Float, residual: Float | None, weight: Float, bias: Float | None, a: Attributes) -> Array:
    """x f32 [..., K] times weight f32 [N, K], one fma per input channel in increasing order: [..., N]."""
    total = np.zeros((*x.shape[:-1], weight.shape[0]), np.float32)
    for i in range(x.shape[-1]):
        total = fma(x[..., i, None], weight[:, i], total)
    with quiet():
        total = total if bias is None else total + bias
        v = total if a.get("activation_last") else apply_activation(total, a)
        v = v if residual is None else v + residual
    return store(apply_activation(v, a) if a.get("activation_last") else v, a)


def layer_norm(
    x: Float, gamma: Float, beta: Float, y_multiplier: Float | None, a: Attributes
) -> tuple[Float, Array | None]:
    """Normalize each row to mean 0 and variance 1, then scale and shift: y, and y quantized if asked for."""
    n = np.float32(x.shape[-1])
    with quiet():
        d = x - (sum16(x) / n)[..., None]
        variance = dot16(d, d) / n
        rstd = np.float32(1) / np.sqrt(variance + np.float32(a["epsilon"]))
        y = fma(d * rstd[..., None], gamma, beta)
    return y, store(y, a, y_multiplier) if "y_scale" in a else None


def _rows(table: Float, ids: Array, name: str) -> Float:
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        raise ModelError(
            f"EmbeddingSum: {name} must lie in [0, {len(table) - 1}], the rows of its table, but they reach "
            f"from {ids.min()} to {ids.max()}."
        )
    return table[ids]


def embedding_sum(
    ids: Array, type_ids: Array | None, word: Float, position: Float, type_: Float | None, a: Attributes
) -> Float:
    """(word[ids] + type[type_ids]) + position[0..L)."""
    if ids.shape[1] > len(position):
        raise ModelError(
            f"EmbeddingSum: the text has {ids.shape[1]} tokens, but the model has only {len(position)} "
            f"positions."
        )
    y = _rows(word, ids, "ids")
    if type_ids is not None and type_ is not None:
        y = y + _rows(type_, type_ids, "type_ids")
    return y + position[: ids.shape[1]]


def _heads(x: Float, heads: int) -> Float:
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(0, 2, 1, 3)


def scores(q: Float, k: Float, scale: float) -> Float:
    """s[..., i, j] = (sum over d of q[i, d] * k[j, d]) * scale, by fma in increasing order of d."""
    total = np.zeros((*q.shape[:-1], k.shape[-2]), np.float32)
    for d in range(q.shape[-1]):
        total = fma(q[..., :, None, d], k[..., None, :, d], total)
    with quiet():
        return np.asarray(total * np.float32(scale), np.float32)


def softmax_parts(s: Float, kept: NDArray[np.bool_]) -> tuple[Float, Float]:
    """e = exp(s - max) where kept, else +0, and its sum over the last axis."""
    with quiet():
        top = np.where(kept, s, -np.inf).max(-1, keepdims=True).astype(np.float32)
        e = np.where(kept, binary32.exp(s - top), np.float32(0)).astype(np.float32)
    return e, sum16(e)


def attention_float(q: Float, k: Float, v: Float, kept: NDArray[np.bool_], scale: float) -> Float:
    """The general form, in binary32, of heads q, k, v [..., L, D] over the kept keys."""
    e, z = softmax_parts(scores(q, k, scale), np.broadcast_to(kept, (*q.shape[:-1], len(kept))))
    total = np.zeros(q.shape, np.float32)
    for j in range(len(kept)):
        total = fma(e[..., j, None], v[..., None, j, :], total)
    with quiet():
        return np.asarray(total * (np.float32(1) / z)[..., None], np.float32)


def attention_head(q: Float, k: Float, v: Float, kept: NDArray[np.bool_], scale: float) -> Float:
    """One head, q, k, v [L, D]: in fixed point where its numbers allow it; 0 where nothing is kept."""
    if not kept.any():
        return np.zeros(q.shape, np.float32)
    if fixed_attention.allowed(q, k[kept], v[kept], scale):
        return fixed_attention.attention(q, k[kept], v[kept], scale)
    return attention_float(q, k, v, kept, scale)


def attention(q: Float, k: Float, v: Float, mask: Array | None, a: Attributes) -> Array:
    """softmax(q k^T * scale over the kept keys) v, per head: [B, L, H]; 0 where the mask keeps nothing."""
    queries, keys, values = (_heads(x, a["heads"]) for x in (q, k, v))
    kept = np.ones(q.shape[:2], np.bool_) if mask is None else mask.astype(np.bool_)
    y = np.zeros(queries.shape, np.float32)
    for b, h in np.ndindex(*queries.shape[:2]):
        y[b, h] = attention_head(queries[b, h], keys[b, h], values[b, h], kept[b], a["scale"])
    return store(y.transpose(0, 2, 1, 3).reshape(q.shape), a)


def packed_attention(qkv: Float, mask: Array | None, a: Attributes) -> Array:
    """`attention` of the three thirds of qkv [B, L, 3H]."""
    q, k, v = np.split(qkv, 3, axis=-1)
    return attention(q, k, v, mask, a)


def mean_pool(x: Float, mask: Array, a: Attributes) -> Float:
    """Mean over the kept positions: [B, L, H] -> [B, H]; 0 where the mask keeps nothing."""
    total = np.zeros((x.shape[0], x.shape[2]), np.float32)
    kept = mask != 0
    with quiet():
        for position in range(x.shape[1]):
            total = np.where(kept[:, position, None], total + x[:, position], total)
        count = binary32.maximum(kept.sum(1).astype(np.float32), np.float32(1e-9))
        return np.divide(total, count[:, None], dtype=np.float32)


def l2_normalize(x: Float, a: Attributes) -> Float:
    """x / max(its Euclidean norm, epsilon), over the last axis."""
    with quiet():
        norm = np.sqrt(dot16(x, x))
        return np.asarray(x / binary32.maximum(norm, np.float32(a["epsilon"]))[..., None], np.float32)


def quantize(x: Float, a: Attributes) -> Array:
    """x as u8 with y_scale and y_zero_point."""
    return binary32.quantize(x, a["y_scale"], a["y_zero_point"])


def add(x: Float, y: Float, a: Attributes) -> Float:
    """x + y."""
    with quiet():
        return np.asarray(x + y, np.float32)


def activation(name: str) -> Callable[[Float, Attributes], Float]:
    """The meaning of an activation as an operator of its own, element by element."""
    return lambda x, a: apply_activation(x, {**a, "activation": name})


MEANING: dict[str, Callable[..., Any]] = {
    "EmbeddingSum": embedding_sum,
    "LayerNorm": layer_norm,
    "Linear": linear,
    "LinearFloat": linear_float,
    "Attention": attention,
    "MeanPool": mean_pool,
    "L2Normalize": l2_normalize,
    "Quantize": quantize,
    "Add": add,
    **{operator_of_activation(name): activation(name) for name in ACTIVATIONS if name != "none"},
}
_ARITY = {
    "EmbeddingSum": 5,
    "LayerNorm": 4,
    "Linear": 6,
    "LinearFloat": 4,
    "Attention": 4,
    "MeanPool": 2,
    "Add": 2,
}


def compute(node: ir.Node, inputs: list[Array | None]) -> list[Array | None]:
    """The outputs of one openwork node; raises ModelError for an operator it does not know."""
    if node.op_type not in MEANING:
        raise ModelError(
            f"{describe(node)} is not an operator of the domain {DOMAIN!r}; docs/program.md lists them."
        )
    values, packed = attributes(node), attributes(node).get("packed")
    count = 2 if packed else _ARITY.get(node.op_type, 1)
    filled = inputs + [None] * (count - len(inputs))
    meaning: Callable[..., Any] = packed_attention if packed else MEANING[node.op_type]
    outputs = meaning(*filled, values)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def run(model: ir.Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Interpret a graph: outputs by name from inputs by name.

    Nodes of the domain "openwork" mean what this module says; any other node is computed by onnx's own
    reference evaluator, so that a partly reduced graph has a meaning too.
    Raises ModelError for a missing or unknown input name.
    """
    graph = model.graph
    expected = {str(value.name) for value in graph.inputs}
    if expected != set(inputs):
        raise ModelError(f"The model's inputs are {sorted(expected)}, but {sorted(inputs)} were given.")
    values: dict[ir.Value, Array | None] = {
        value: np.asarray(inputs[str(value.name)]) for value in graph.inputs
    }
    for value in graph.initializers.values():
        values[value] = constant(value)
    for node in graph:
        operands = [None if value is None else values[value] for value in node.inputs]
        results = compute(node, operands) if node.domain == DOMAIN else run_onnx_node(node, operands)
        values.update(zip(node.outputs, results, strict=False))
    outputs = {str(value.name): values[value] for value in graph.outputs}
    return {name: array for name, array in outputs.items() if array is not None}
